"""Claims and measurements side by side."""

from __future__ import annotations

import pytest

from relume.core.figures import budgets_in_words, in_words, rows, tried

CLAIMS = (
    {"variant": "a-x2", "dataset": "Set5", "metric": "psnr", "value": 38.0, "protocol": "sr-y"},
    {"variant": "a-x2", "dataset": "Set5", "metric": "ssim", "value": 0.96, "protocol": "sr-y"},
    {"variant": "a-x2", "dataset": "GoPro", "metric": "psnr", "value": 33.691, "protocol": "sr-rgb"},
    {"variant": "a-x4", "dataset": "Set14", "metric": "psnr", "value": 28.0, "protocol": "sr-y"},
)
MEASURED = (
    {"set": "Chikusei", "protocol": "cubes", "pictures": 16, "psnr": 30.0, "bicubic_psnr": 29.0, "sam": 2.5,
     "bicubic_sam": 3.25, "seconds": 1.0},
    {"set": "Set5", "protocol": "sr-y", "pictures": 5, "psnr": 37.4, "bicubic_psnr": 33.67},
)  # fmt: skip


def test_rows_hold_what_belongs_together():
    cube, set5, gopro = rows(CLAIMS, MEASURED, "a-x2")
    assert (cube.place, cube.measured, cube.bicubic, cube.pictures) == (
        "Chikusei (cubes)", {"psnr": 30.0, "sam": 2.5}, {"psnr": 29.0, "sam": 3.25}, 16
    )  # fmt: skip
    assert (set5.place, set5.claimed, set5.measured) == ("Set5", {"psnr": 38.0, "ssim": 0.96}, {"psnr": 37.4})
    assert (gopro.place, gopro.measured, gopro.pictures) == ("GoPro (sr-rgb)", {}, None)


def test_figures_in_words():
    assert in_words({"ssim": 0.96, "psnr": 38.0}) == "38.00 / 0.9600"
    assert in_words({"psnr": 33.691}) == "33.69"
    assert in_words({"ssim": 0.9}) == "SSIM 0.9000"
    assert in_words({"sam": 2.5, "psnr": 30.0, "ergas": 4.12345}) == "30.00, ERGAS 4.123, SAM 2.5"
    assert in_words({}) == ""


def test_a_short_training_tells_how_its_network_differed():
    trained = {"network": {"depths": [2, 2], "width": 32}, "parameters": 1234}
    assert tried("hat-x2", trained) == "hat-x2 with depths 2 2, width 32: 1,234 parameters"
    assert tried("hat-x2", {"network": {}, "parameters": 1234}) == "hat-x2"


@pytest.mark.parametrize(
    ("device", "steps", "told"),
    [
        ("cpu", 9000, "cpu 12,000 steps (9,000 run), gpu 40,000 steps (not run yet)"),
        ("cpu", 12_000, "cpu 12,000 steps (run whole), gpu 40,000 steps (not run yet)"),
        ("cuda", 40_000, "cpu 12,000 steps (not run yet), gpu 40,000 steps (run whole)"),
    ],
)
def test_budgets_tell_how_much_of_them_was_run(device, steps, told):
    budgets = {"cpu": 12_000, "gpu": 40_000}
    said = budgets_in_words("x", budgets, {"device": device, "of_steps": steps})
    assert said == f"budgets of its recipe: {told}"


def test_earlier_trainings_of_the_same_variant_count_in_its_budget():
    before = [{"variant": "y", "of_steps": 9000}, {"variant": "x", "of_steps": 5000}]
    trained = {"device": "cpu", "of_steps": 4000, "before": before}
    assert budgets_in_words("x", {"cpu": 12_000}, trained).endswith("(9,000 run)")
    assert budgets_in_words("y", {"cpu": 12_000}, trained).endswith("(run whole)")
