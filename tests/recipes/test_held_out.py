"""What is held out of the photos is validated on as `relume evaluate` measures it after."""

import json

import pytest
import torch

from relume.apps.evaluating import Way, measured
from relume.core.pictures import Picture, write
from relume.measures.protocols import SR_Y
from relume.recipes.runner import Run, find_recipe

SMALL = {"network.depths": [1], "network.width": 8, "network.kernel_size": 3, "start": None, "threads": 1,
         "data.patch": 8, "data.batch": 2, "steps": 2, "log_every": 2, "validate_every": 2}  # fmt: skip


def test_validation_on_damaged_rows_agrees_with_evaluation(tmp_path):
    """All pictures are the same, so that their figures differ by what each was damaged with."""
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), size=(128, 96), mode="bicubic")[0]
    folders = ("one", "two")
    for folder in folders:
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png", "c.png"):
            write(Picture(pixels=smooth.clamp(0, 1)), tmp_path / folder / name)
    changes = {
        "data.folders": [str(tmp_path / folder) for folder in folders], "data.held_out": 0.5,
        "degradation": "bsrgan", "validation.damaged": True,
    }  # fmt: skip
    recipe = find_recipe("cfsr-x2", "cpu").override({**SMALL, **changes}, where="test")
    run = Run(recipe, tmp_path / "run", command="test")
    run.train()
    (told,) = (
        values["validation"]
        for values in map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
        if "validation" in values
    )
    data = tuple((None, tmp_path / folder) for folder in folders)
    way = Way(data=data, protocol=SR_Y, degradation="bsrgan", held_out=0.5, device="cpu")
    _, evaluation = measured(str(run.best_path), way)
    assert len({row.bicubic["psnr"] for row in evaluation.rows}) == 3
    for name in ("psnr", "ssim"):
        rows = [(row.scores[name], row.bicubic[name]) for row in evaluation.rows]
        scores, bicubic = (sum(values) / len(rows) for values in zip(*rows, strict=True))
        assert told[name] == pytest.approx(scores, abs=1e-3)
        assert told[f"{name}_bicubic"] == pytest.approx(bicubic, abs=1e-6)
