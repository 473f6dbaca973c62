"""Leaderboards: what is counted, how lines are ordered, and what the files hold."""

import csv
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from relume.core.catalogue import systems
from relume.core.contract import Contract
from relume.core.expense import Expense
from relume.insight import leaderboard
from relume.insight.evaluate import SetMean
from relume.insight.leaderboard import Cost, Standing
from relume.models import zoo
from relume.nn.network import Network


def standing(name, psnr, *, scale=2, seconds=0.5):
    scores, bicubic = {"psnr": psnr, "ssim": psnr / 40}, {"psnr": 30.0, "ssim": 0.75}
    mean = SetMean(set_name="Set5", pictures=5, scores=scores, bicubic=bicubic, seconds=0.1)
    cost = Cost(macs=1_500_000_000, expense=Expense(seconds=seconds, memory=3 << 20))
    return Standing(name=name, scale=scale, parameters=12_345, cost=cost, means=(mean,))


BOARD = [standing("worse", 29.0), standing("better", 33.0), standing("larger", 28.0, scale=4, seconds=2.0)]


def low(channels, scale):
    return leaderboard.costed(torch.rand(channels, 17, 30), channels=channels, scale=scale)


def test_macs_are_those_of_the_paper():
    network = zoo.build(zoo.variant("cfsr-x4").config, system="cfsr", steps=("reparameterise",))
    # Table II of arXiv:2401.05633 says 17.5 G.
    assert leaderboard.count_macs(network, low(3, 4)) / 1e9 == pytest.approx(17.5, abs=0.05)


def test_macs_of_a_convolution_and_a_norm():
    plain = nn.Conv2d(3, 8, 3, padding=1)
    pixels = 360 * 640
    assert leaderboard.count_macs(plain, low(3, 2)) == pixels * 3 * 8 * 9
    normed = nn.Sequential(nn.Conv2d(3, 8, 1), leaderboard.LayerNorm2d(8))
    assert leaderboard.count_macs(normed, low(3, 2)) == pixels * (3 * 8 + 5 * 8)


def test_what_is_spent_where_a_picture_needs_it_is_counted_on_the_picture():
    routed = zoo.build(
        zoo.model_file(systems()["routed"]).tiny(zoo.variant("cfsr-routed-x4").config), system="routed"
    )
    counts = {}
    for effort in (0, 1):
        routed.effort = effort
        counts[effort] = leaderboard.count_macs(routed.eval(), torch.rand(1, 3, 20, 24))
    assert counts[1] == leaderboard.count_macs(routed.heavy, torch.rand(1, 3, 20, 24))
    assert 0 < counts[0] < counts[1]


def test_attention_is_counted_alike_where_it_is_computed():
    class Attending(Network):
        def __init__(self, *, effort):
            super().__init__()
            self.choice = effort

        @property
        def contract(self):
            return Contract(scale=1, channels=3, halo=None, effort=self.choice)

        def forward(self, x):
            # In one piece, as the CPU's own kernel takes it, which the counter does not know.
            tokens = x.flatten(2).transpose(1, 2)[:, None].contiguous()  # 1 1 HW 3
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    picture = torch.rand(1, 3, 8, 16)
    for effort in (False, True):
        assert leaderboard.count_macs(Attending(effort=effort), picture) == 2 * (8 * 16) ** 2 * 3


def test_a_network_that_cannot_be_counted_says_why():
    class Asking(nn.Module):
        def forward(self, x):
            return x if x.mean() > 0 else -x

    with pytest.raises(leaderboard.UncountedError, match=r"cannot be counted: .*meta"):
        leaderboard.count_macs(Asking(), low(3, 2))


@pytest.mark.parametrize(
    ("channels", "scale", "size"), [(3, 4, (180, 320)), (1, 3, (240, 426)), (7, 1, (720, 1280))]
)
def test_cost_is_told_of_a_picture_continued_to_1280_by_720(channels, scale, size):
    picture = torch.rand(max(channels, 3), 17, 400)
    found = leaderboard.costed(picture, channels=channels, scale=scale)
    assert found.shape == (1, channels, *size)
    seen = picture if channels > 1 else picture.mean(0, keepdim=True)
    assert torch.equal(found[0, :, :17, :300], seen[:, :, :300])
    assert torch.equal(found[0, :, 17:33], found[0, :, :16].flip(1))


def test_time_is_taken_of_the_whole_input():
    seen = []

    def run(low):
        seen.append(tuple(low.shape))
        return low

    expense = leaderboard.time_run(run, low(1, 3), device="cpu")
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


def test_what_was_not_counted_is_told_with_its_reason(tmp_path):
    cost = Cost(macs=None, expense=Expense(seconds=0.5, memory=None), uncounted="no way to count it")
    board = [*BOARD, replace(BOARD[0], name="odd", cost=cost)]
    leaderboard.write_csv(board, tmp_path / "board.csv")
    with (tmp_path / "board.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert (rows["odd"]["macs"], rows["odd"]["seconds"]) == ("", "0.5")
    notes = leaderboard.facts(board, {})
    leaderboard.write_markdown(board, tmp_path / "board.md", heading="Board", notes=notes)
    text = (tmp_path / "board.md").read_text()
    assert "| x2 | odd | 12,345 | - | 0.50 | - |" in text
    assert "- odd: no way to count it" in text


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
    leaderboard.count_macs(network, low(3, 1))
    assert network.weight.device.type == "meta"
