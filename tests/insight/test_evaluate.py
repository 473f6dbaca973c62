"""Evaluation: figures, means, files, and the bicubic column of the published tables."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from relume.core.errors import DataError
from relume.data.benchmarks import Pair, find_pairs
from relume.insight.evaluate import evaluate, write_csv, write_json
from relume.measures.protocols import protocol
from relume.nn.resize import enlarge_bicubic, imresize_uint8

SR_Y = protocol("sr-y")


def _pair(set_name, name, *, seed=0, side=32):
    levels = torch.randint(0, 256, (3, side, side + 4), generator=torch.Generator().manual_seed(seed))
    levels = levels.to(torch.uint8)
    return Pair(
        set_name=set_name,
        name=name,
        low=imresize_uint8(levels, height=side // 2, width=(side + 4) // 2).float() / 255,
        high=levels.float() / 255,
        low_source="made",
        high_path=Path(f"{name}.png"),
        low_path=None,
        high_sha256=f"hash of {name}",
        low_sha256=None,
    )


@pytest.fixture
def pairs():
    return [_pair("A", "one", seed=1), _pair("A", "two", seed=2), _pair("B", "three", seed=3)]


def _repeat(low):
    return low.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_rows_means_and_progress(pairs):
    seen = []
    result = evaluate(
        _repeat,
        pairs,
        scale=2,
        protocol=SR_Y,
        progress=lambda row, done, total: seen.append((row.name, done, total)),
    )
    assert seen == [("one", 1, 3), ("two", 2, 3), ("three", 3, 3)]
    one, two, three = result.rows
    assert one.scores == SR_Y.measure(_repeat(pairs[0].low[None])[0], pairs[0].high, 2)
    assert one.bicubic == SR_Y.measure(enlarge_bicubic(pairs[0].low, scale=2), pairs[0].high, 2)
    assert one.scores != one.bicubic
    assert (one.low_size, one.high_size) == ((16, 18), (32, 36))
    assert (one.high_sha256, one.low_sha256, one.low_source) == ("hash of one", None, "made")
    assert one.seconds > 0
    first, second = result.means
    assert (first.set_name, first.pictures, second.set_name, second.pictures) == ("A", 2, "B", 1)
    assert first.scores["psnr"] == pytest.approx((one.scores["psnr"] + two.scores["psnr"]) / 2)
    assert second.bicubic == three.bicubic


def test_streams_have_no_total_and_run_in_inference_mode(pairs):
    modes, totals = [], []

    def upscale(low):
        modes.append(torch.is_inference_mode_enabled())
        return _repeat(low)

    evaluate(
        upscale, iter(pairs), scale=2, protocol=SR_Y, progress=lambda _row, _done, total: totals.append(total)
    )
    assert modes == [True] * 3
    assert totals == [None] * 3


def test_refusals(pairs):
    with pytest.raises(DataError, match="no pictures"):
        evaluate(_repeat, [], scale=2, protocol=SR_Y)
    with pytest.raises(DataError, match=r"small\.png is 16×12 pixels.*needs 15"):
        evaluate(_repeat, [_pair("A", "small", side=12)], scale=2, protocol=SR_Y)
    with pytest.raises(ValueError, match=r"\(3, 16, 18\) but target is \(3, 32, 36\)"):
        evaluate(lambda low: low, pairs, scale=2, protocol=SR_Y)


def test_files_hold_everything_and_replace_the_old(pairs, tmp_path):
    result = evaluate(_repeat, pairs, scale=2, protocol=SR_Y)
    folder = tmp_path / "made for it"
    folder.mkdir()
    for _ in range(2):
        write_csv(result, folder / "rows.csv")
        write_json(result, folder / "run.json", model={"variant": "repeat-x2"})
    assert sorted(path.name for path in folder.iterdir()) == ["rows.csv", "run.json"]

    with (folder / "rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["one", "two", "three"]
    assert float(rows[1]["psnr"]) == result.rows[1].scores["psnr"]
    assert float(rows[1]["bicubic_ssim"]) == result.rows[1].bicubic["ssim"]

    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert run["protocol"]["name"] == "sr-y"
    assert run["scale"] == 2
    assert run["model"] == {"variant": "repeat-x2"}
    assert run["versions"]["torch"] == torch.__version__
    assert set(run["versions"]) == {"relume", "torch", "python"}
    assert [(each["set"], each["pictures"]) for each in run["sets"]] == [("A", 2), ("B", 1)]
    assert run["sets"][0]["psnr"] == result.means[0].scores["psnr"]
    assert run["pictures"][2]["high_sha256"] == "hash of three"


def test_infinity_is_valid_json(pairs, tmp_path):
    answers = iter([pair.high[None] for pair in pairs])
    result = evaluate(lambda _low: next(answers), pairs, scale=2, protocol=SR_Y)
    write_json(result, tmp_path / "run.json", model={})
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert "Infinity" not in text
    assert float(json.loads(text)["sets"][0]["psnr"]) == math.inf


def test_failed_write_leaves_the_old_file(pairs, tmp_path):
    result = evaluate(_repeat, pairs, scale=2, protocol=SR_Y)
    write_json(result, tmp_path / "run.json", model={})
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(TypeError):
        write_json(result, tmp_path / "run.json", model={"weights": torch.ones(1)})
    assert (tmp_path / "run.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("folder", "scale", "psnr"),
    [
        ("sr/Set5", 2, 33.67),
        ("sr/Set5", 3, 30.40),
        ("sr/Set5", 4, 28.43),
        ("sr/Set14_HR", 2, 30.32),
        ("sr/Set14_HR", 3, 27.63),
        ("sr/Set14_HR", 4, 26.09),
        ("train/BSDS500/val", 4, 25.96),
    ],
)
def test_bicubic_column_of_the_tables(shared, folder, scale, psnr):
    pairs = find_pairs(shared / "data" / folder, scale=scale, always_make_low=True)
    result = evaluate(lambda low: enlarge_bicubic(low, scale=scale), pairs, scale=scale, protocol=SR_Y)
    assert result.means[0].bicubic["psnr"] == pytest.approx(psnr, abs=0.0051)
    assert result.means[0].scores == result.means[0].bicubic
