"""Leaderboards: what is counted, how lines are ordered, and what the files hold."""

import csv

import pytest
import torch
from PIL import Image
from torch import nn

from relume.core.expense import Expense
from relume.insight import leaderboard
from relume.insight.evaluate import SetMean
from relume.insight.leaderboard import Cost, Standing
from relume.models import zoo


def standing(name, psnr, *, scale=2, seconds=0.5):
    scores, bicubic = {"psnr": psnr, "ssim": psnr / 40}, {"psnr": 30.0, "ssim": 0.75}
    mean = SetMean(set_name="Set5", pictures=5, scores=scores, bicubic=bicubic, seconds=0.1)
    cost = Cost(macs=1_500_000_000, expense=Expense(seconds=seconds, memory=3 << 20))
    return Standing(name=name, scale=scale, parameters=12_345, cost=cost, means=(mean,))


BOARD = [standing("worse", 29.0), standing("better", 33.0), standing("larger", 28.0, scale=4, seconds=2.0)]


def test_macs_are_those_of_the_paper():
    network = zoo.build(zoo.variant("cfsr-x4").config, system="cfsr", steps=("reparameterise",))
    # Table II of arXiv:2401.05633 says 17.5 G.
    assert leaderboard.count_macs(network, channels=3, scale=4) / 1e9 == pytest.approx(17.5, abs=0.05)


def test_macs_of_a_convolution_and_a_norm():
    plain = nn.Conv2d(3, 8, 3, padding=1)
    pixels = 360 * 640
    assert leaderboard.count_macs(plain, channels=3, scale=2) == pixels * 3 * 8 * 9
    normed = nn.Sequential(nn.Conv2d(3, 8, 1), leaderboard.LayerNorm2d(8))
    assert leaderboard.count_macs(normed, channels=3, scale=2) == pixels * (3 * 8 + 5 * 8)


def test_time_is_taken_of_an_output_of_1280_by_720():
    seen = []

    def run(low):
        seen.append(tuple(low.shape))
        return low

    expense = leaderboard.time_run(run, channels=1, scale=3, device="cpu")
    assert seen == [(1, 1, 32, 32), (1, 1, 240, 426), (1, 1, 240, 426)]
    assert expense.seconds > 0


def test_each_scale_is_ranked_with_bicubic_in_it():
    names = [(each.scale, each.name) for each in leaderboard.ranked(BOARD)]
    assert names == [(2, "better"), (2, "bicubic"), (2, "worse"), (4, "bicubic"), (4, "larger")]


def test_the_files_hold_the_same(tmp_path):
    leaderboard.write_csv(BOARD, tmp_path / "board.csv")
    with (tmp_path / "board.csv").open() as file:
        first, bicubic, *_ = csv.DictReader(file)
    assert (first["model"], first["macs"], first["memory_bytes"]) == ("better", "1500000000", "3145728")
    assert (bicubic["model"], bicubic["seconds"], bicubic["Set5 psnr"]) == ("bicubic", "", "30.0")
    notes = leaderboard.facts(BOARD, {"processor": "some"})
    leaderboard.write_markdown(BOARD, tmp_path / "board.md", heading="Board", notes=notes)
    lines = (tmp_path / "board.md").read_text().splitlines()
    assert lines[0] == "# Board"
    assert "| x2 | better | 12,345 | 1.5 G | 0.50 | 3 MiB | 33.00 | 0.8250 |" in lines
    assert "- processor: some" in lines
    assert any("Set5 (5 pictures)" in line for line in lines)


def test_the_pictures_show_something(tmp_path):
    leaderboard.draw_table(BOARD, tmp_path / "table.png", heading="Board")
    leaderboard.draw_plot(BOARD, tmp_path / "plot.png")
    for name in ("table", "plot"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 100
            colours = picture.convert("RGB").getcolors(1 << 20)
        assert len(colours) > 20
    leaderboard.draw_table(BOARD[:1], tmp_path / "less.png", heading="Board")
    with Image.open(tmp_path / "table.png") as more, Image.open(tmp_path / "less.png") as less:
        assert more.height - less.height == 26 * 3


@torch.no_grad()
def test_networks_are_counted_without_being_run():
    network = nn.Conv2d(3, 8, 3)
    leaderboard.count_macs(network, channels=3, scale=1)
    assert network.weight.device.type == "meta"
