"""`relume upscale` with a model of luma: colours by bicubic, and every kind of picture and way as ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from commanding import size_of
from relume.core.pictures import Picture, read, write
from relume.models.super_resolution.espcn import ESPCN, ESPCNConfig
from relume.nn.colour import rgb_to_y, rgb_to_ycbcr
from relume.nn.resize import imresize

SCALE = 2


def network() -> ESPCN:
    torch.manual_seed(0)
    made = ESPCN(ESPCNConfig(scale=SCALE, width=8)).eval().requires_grad_(False)
    # Near to the middle of the range, so that little of the colour is beyond what RGB has.
    made.expand.weight.mul_(0.2)
    made.expand.bias.fill_(0.5)
    return made


@pytest.fixture(scope="module")
def luma(tmp_path_factory) -> Path:
    """A checkpoint as the code that we read writes it."""
    path = tmp_path_factory.mktemp("luma") / "luma.safetensors"
    names = {"extract": "first_part.0", "refine": "first_part.2", "expand": "last_part.0"}
    state = network().state_dict()
    theirs = {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in state.items()}
    save_file(theirs, path)
    return path


def photo(channels: int, *, height: int = 30, width: int = 41) -> Tensor:
    """A smooth picture of middling colours, of whole 16-bit levels."""
    generator = torch.Generator().manual_seed(channels)
    rough = torch.rand(channels, 5, 6, generator=generator) * 0.3 + 0.35
    return imresize(rough, height=height, width=width).mul(65535).round() / 65535


def test_the_model_makes_the_luma_and_bicubic_the_colours(tmp_path, relume, luma):
    write(Picture(pixels=photo(3), bits=16), tmp_path / "a.tif")
    done = relume("upscale", "a.tif", "-n", luma, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    low, high = read(tmp_path / "a.tif").pixels, read(tmp_path / "a_x2.tif")
    assert high.bits == 16
    planes = rgb_to_ycbcr(high.pixels)
    assert (planes[:1] - network()(rgb_to_y(low)[None])[0]).abs().max() <= 2 / 65535
    colours = imresize(rgb_to_ycbcr(low)[1:], height=SCALE * 30, width=SCALE * 41)
    assert (planes[1:] - colours).abs().max() <= 2 / 65535


@pytest.mark.parametrize("how", [[], ["--faithful"], ["--ensemble"], ["--scale", "3.3"]])
def test_every_kind_of_picture_in_one_run(tmp_path, relume, luma, how):
    alpha = photo(1)
    kinds = {"rgb": (3, None), "rgba": (3, alpha), "gray": (1, None), "graya": (1, alpha)}
    (tmp_path / "in").mkdir()
    for name, (channels, plane) in kinds.items():
        write(Picture(pixels=photo(channels), alpha=plane), tmp_path / "in" / f"{name}.png")
    write(Picture(pixels=photo(1).expand(3, -1, -1), alpha=None), tmp_path / "in" / "copy.png")
    folders = {}
    for tile in ("0", "7"):
        folders[tile] = tmp_path / f"out {tile}"
        done = relume(
            "upscale", "in", "-n", luma, "-o", folders[tile], "--tile", tile, *how, "--report", "report.csv",
            cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "5 enlarged, 0 failed" in done.stdout
        assert "rgba.png" in (tmp_path / "report.csv").read_text()
        (tmp_path / "report.csv").unlink()
    for name, (channels, plane) in kinds.items():
        whole, tiled = (read(folder / f"{name}.png") for folder in folders.values())
        assert whole.channels == channels
        assert whole.transparent == (plane is not None)
        # A half may fall to either side.
        assert (whole.pixels - tiled.pixels).abs().max() <= 1.01 / 255
    gray, copy = (read(folders["0"] / f"{name}.png").pixels for name in ("gray", "copy"))
    assert (gray - copy).abs().max() <= 1.01 / 255


def test_little_memory_is_enough(tmp_path, relume, luma):
    write(Picture(pixels=photo(3, height=500, width=700)), tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    assert relume("upscale", "a.png", "-n", luma, "--tile", "0", cwd=tmp_path).returncode == 0
    done = relume("upscale", "b.png", "-n", luma, "--memory", "900MiB", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert size_of(tmp_path / "b_x2.png") == (1400, 1000)
    difference = read(tmp_path / "a_x2.png").pixels - read(tmp_path / "b_x2.png").pixels
    assert difference.abs().max() <= 1.01 / 255
