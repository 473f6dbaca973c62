"""Hyperspectral cubes from training to use, by the real commands: kept in their units, or refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from relume.core.checkpoints import Header, read_checkpoint, write_checkpoint
from relume.core.cubes import CubeForm, read_cube, write_cube
from relume.core.pictures import Picture, write
from relume.models.super_resolution.essaformer import ESSAformer, ESSAformerConfig
from relume.nn.resize import imresize

BANDS = 6


def scene(*, height: int = 32, width: int = 26, bands: int = BANDS) -> torch.Tensor:
    """A smooth cube that spans 0..1."""
    rough = torch.rand(bands, 6, 5, generator=torch.Generator().manual_seed(bands))
    values = imresize(rough, height=height, width=width).clamp(0.01, 1)
    return values / values.max()


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = ESSAformerConfig(scale=2, bands=BANDS, width=8, dropout=0.0)
    network = ESSAformer(config)
    with torch.no_grad():
        network.reconstruct.bias.fill_(0.4)
    header = Header(model="essaformer", variant=None, config=config.model_dump(mode="json"))
    write_checkpoint(tmp_path / "six.safetensors", network.state_dict(), header)
    (tmp_path / "cubes").mkdir()
    write_cube(tmp_path / "cubes" / "scene.mat", scene(), CubeForm(peak=4000, name="img"), kind="mat")
    return tmp_path


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def expected(weights: Path, low: torch.Tensor) -> torch.Tensor:
    header, state = read_checkpoint(weights)
    network = ESSAformer(ESSAformerConfig.parse(header.config, where="test")).eval()
    network.load_state_dict(state)
    with torch.no_grad():
        return network(low[None])[0].clamp(0, 1)


@pytest.mark.parametrize("ending", ["mat", "npy"])
def test_a_cube_comes_out_larger_in_its_own_units(desk, relume, ending):
    done = relume(
        "upscale", "cubes/scene.mat", "-n", "six.safetensors", "--engine", "torch", "--tile", "0",
        *(["-o", "out.npy"] if ending == "npy" else []), cwd=desk,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = expected(desk / "six.safetensors", scene()) * 4000
    if ending == "npy":
        array = np.load(desk / "out.npy")
        assert (array.shape, array.dtype) == ((64, 52, BANDS), np.float32)
        assert np.abs(array.transpose(2, 0, 1) - found.numpy()).max() < 0.05
    else:
        cube = read_cube(desk / "cubes" / "scene_x2.mat")
        assert cube.form.name == "img"
        assert (cube.bands * cube.form.peak - found).abs().max() < 0.05


def test_folders_of_cubes_are_searched_for_cubes(desk, relume):
    write(Picture(pixels=torch.rand(3, 8, 8)), desk / "cubes" / "photo.png")
    done = relume("upscale", "cubes", "-n", "six.safetensors", "--engine", "torch", "-o", "larger", cwd=desk)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (desk / "larger").glob("[!.]*")) == ["scene.mat"]


def test_what_cannot_be_enlarged_is_told_in_one_line(desk, refused, tiny):
    write_cube(desk / "other.npy", scene(bands=9), CubeForm(), kind="npy")
    write_cube(desk / "three.npy", scene(bands=3), CubeForm(), kind="npy")
    write(Picture(pixels=torch.rand(3, 8, 8)), desk / "photo.png")
    six, engine = desk / "six.safetensors", ("--engine", "torch")
    for arguments, says in (
        (("other.npy", "-n", six), ("other.npy: a cube of 9 bands does not fit", "takes cubes of 6")),
        (("other.npy", "-n", tiny), ("a cube of 9 bands does not fit", "takes pictures")),
        (("three.npy", "-n", tiny), ("a cube of 3 bands does not fit", "takes pictures")),
        (("photo.png", "-n", six), ("photo.png", "takes cubes of 6 bands, and this is a picture")),
        (("cubes/scene.mat", "-n", six, "-o", "a.png"), ("a.png: a cube cannot be written as PNG",)),
    ):
        refused("upscale", *arguments, *engine, cwd=desk, says=says)


def test_figures_of_cubes_stand_beside_bicubic(desk, relume):
    done = relume("evaluate", "six.safetensors", "--data", "cubes", cwd=desk)
    assert done.returncode == 0, done.stderr
    (row,) = table(desk / "evaluation" / "six-cube.csv")
    for figure in ("psnr", "sam", "bicubic_psnr", "bicubic_sam"):
        assert f" {float(row[figure]):.3f} " in done.stdout
    assert {"psnr", "ssim", "sam", "bicubic_psnr", "bicubic_ssim", "bicubic_sam"} <= row.keys()
    assert (row["high_height"], row["low_height"]) == ("32", "16")
    part = relume(
        "evaluate", "six.safetensors", "--data", "cubes/scene.mat", "--held-out", "0.5", "--record", cwd=desk
    )
    assert part.returncode == 0, part.stderr
    (row,) = table(desk / "evaluation" / "six-cube-held-out-0.5.csv")
    assert (row["set"], row["high_height"]) == ("scene (held out 0.5)", "16")
    header, _ = read_checkpoint(desk / "six.safetensors")
    assert header.measured[0]["sam"] == pytest.approx(float(row["sam"]), abs=1e-4)
    told = json.loads((desk / "evaluation" / "six-cube-held-out-0.5.json").read_text())
    assert told["model"]["held_out"] == 0.5


def test_pictures_and_cubes_are_not_measured_as_each_other(desk, refused, tiny):
    six = desk / "six.safetensors"
    write_cube(desk / "other.npy", scene(bands=9), CubeForm(), kind="npy")
    for arguments, says in (
        (
            (six, "--data", "cubes", "--protocol", "sr-y"),
            ("takes cubes, and protocol sr-y measures pictures",),
        ),
        ((six, "--data", "other.npy"), ("other.npy is a cube of 9 bands, but the model takes cubes of 6",)),
        ((tiny, "--data", "cubes/scene.mat"), ("scene.mat is a cube of 6 bands", "takes pictures")),
        ((tiny, "--data", "cubes"), ("no pictures in cubes",)),
    ):
        refused("evaluate", *arguments, cwd=desk, says=says)


@pytest.mark.parametrize("bands", [BANDS, 3])
def test_a_training_on_one_cube_holds_a_part_out_and_validates_on_it(desk, relume, bands):
    """Also where the bands are as many as a photo's colours."""
    write_cube(desk / "cubes" / "scene.mat", scene(bands=bands), CubeForm(peak=4000, name="img"), kind="mat")
    write(Picture(pixels=torch.rand(3, 32, 26)), desk / "cubes" / "photo.png")
    settings = [
        f"network.bands={bands}", "network.width=4", "network.dropout=0", "data.patch=4", "data.batch=2",
        "data.held_out=0.4", "steps=4", "validate_every=2", "threads=1", "log_every=2",
    ]  # fmt: skip
    chosen = [part for setting in settings for part in ("--set", setting)]
    done = relume("train", "essaformer-128-x2", "--data", "cubes", "--run", "run", *chosen, cwd=desk)
    assert done.returncode == 0, done.stderr
    assert "the lowest 40% of each picture's rows are held out, and validated on" in done.stderr
    lines = [json.loads(line) for line in (desk / "run" / "log.jsonl").read_text().splitlines()]
    validations = [line["validation"] for line in lines if "validation" in line]
    assert len(validations) == 2
    assert validations[0].keys() >= {"psnr", "ssim", "sam", "psnr_bicubic", "sam_bicubic"}
    weights = desk / "run" / "essaformer-128-x2.safetensors"
    header, _ = read_checkpoint(weights)
    assert header.config["bands"] == bands
    done = relume("evaluate", weights, "--data", "cubes", "--held-out", "0.4", "-o", "found", cwd=desk)
    assert done.returncode == 0, done.stderr
    (row,) = table(desk / "found" / "essaformer-128-x2-cube-held-out-0.4.csv")
    # The very figures of the last validation, which is of these weights.
    for name in ("psnr", "sam", "bicubic_psnr"):
        told = validations[-1]["psnr_bicubic" if name == "bicubic_psnr" else name]
        assert float(row[name]) == pytest.approx(told, abs=1e-3)


def test_bands_that_do_not_fit_are_refused_before_a_training(desk, refused):
    refused(
        "train", "essaformer-128-x2", "--data", "cubes", "--run", "run", cwd=desk,
        says=("scene.mat", "a cube of 6 bands", "--set network.bands=6"),
    )  # fmt: skip
