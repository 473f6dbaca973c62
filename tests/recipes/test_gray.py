"""Denoisers of gray pictures, trained on photos of colour, and measured beside the noise."""

import json

import pytest
import torch

from commanding import run_relume
from relume.core.pictures import Picture, write
from relume.recipes.runner import find_recipe

SMALL = {"network.width": 16, "network.dilations": "[1,1,1]", "data.patch": 16, "data.batch": 4, "steps": 150,
         "optimiser.learning_rate": "3e-3", "schedule.warmup": 10, "ema": 0.95, "log_every": 10,
         "validate_every": 150, "threads": 1}  # fmt: skip


@pytest.fixture
def desk(tmp_path):
    torch.manual_seed(0)
    for name, channels in (("photos", 3), ("set", 1)):
        (tmp_path / name).mkdir()
        for index in range(2):
            rough = torch.rand(1, channels, 6, 6)
            smooth = torch.nn.functional.interpolate(rough, size=48, mode="bicubic")[0]
            write(Picture(pixels=smooth.clamp(0, 1)), tmp_path / name / f"{index}.png")
    return tmp_path


def test_a_gray_denoiser_learns_from_photos_of_colour(desk):
    settings = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    done = run_relume(
        "train", "dncnn-25", "--data", "photos", "--validation", "set", "--run", "run", *settings, cwd=desk
    )
    assert done.returncode == 0, done.stderr
    assert "(input 2" in done.stderr
    lines = [json.loads(line) for line in (desk / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] / 2
    (figures,) = [line["validation"] for line in lines if "validation" in line]
    # Noise of 25 levels of 255 is 20.2 dB, a little more where it is cut off at black and white.
    assert figures["psnr_bicubic"] == pytest.approx(20.3, abs=0.4)
    assert figures["psnr"] > figures["psnr_bicubic"] + 3


@pytest.mark.parametrize("variant", ["dncnn-25", "dncnn-color-blind", "swinir-denoise-gray", "swinir-jpeg"])
def test_what_restores_is_validated_on_what_its_recipe_damages(variant):
    assert find_recipe(variant, "cpu").validation.damaged
