"""A model of luma trained on photos of colour: its validation says what `relume evaluate` says after."""

import json
import os
import subprocess
import sys

import pytest
import torch

from relume.core.checkpoints import read_checkpoint
from relume.core.pictures import Picture, write

PHOTO = 48


@pytest.fixture
def desk(tmp_path):
    torch.manual_seed(0)
    for name in ("photos", "set"):
        (tmp_path / name).mkdir()
        for index in range(2):
            smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6), size=PHOTO, mode="bicubic")[0]
            write(Picture(pixels=smooth.clamp(0, 1)), tmp_path / name / f"{index}.png")
    return tmp_path


def relume(desk, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "relume.apps.cli", *arguments], cwd=desk, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_validation_agrees_with_evaluation(desk):
    small = ["--set", "network.width=8", "--set", "data.patch=8", "--set", "data.batch=2"]
    short = ["--set", "steps=40", "--set", "log_every=10", "--set", "validate_every=40"]
    relume(
        desk, "train", "espcn-x3", "--data", "photos", "--validation", "set", "--run", "run", *small, *short
    )  # fmt: skip
    lines = [json.loads(line) for line in (desk / "run" / "log.jsonl").read_text().splitlines()]
    (figures,) = [line["validation"] for line in lines if "validation" in line]
    header, state = read_checkpoint(desk / "run" / "best.safetensors")
    assert header.config["channels"] == 1
    assert state["extract.weight"].shape == (8, 1, 5, 5)
    relume(desk, "evaluate", "run/best.safetensors", "--data", "set")
    (entry,) = json.loads((desk / "evaluation" / "best-sr-y.json").read_text())["sets"]
    for name in ("psnr", "ssim"):
        assert entry[name] == pytest.approx(figures[name], abs=1e-3)
        assert entry[f"bicubic_{name}"] == pytest.approx(figures[f"{name}_bicubic"], abs=1e-6)
