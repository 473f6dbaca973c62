"""`relume compare`: its sheet, its figures, and what it refuses."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from commanding import picture_file, size_of
from relume.apps.face import load
from relume.core.catalogue import find_variant
from relume.core.pictures import Picture, read, write
from relume.infer.consistency import consistency


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return picture_file(tmp_path / "a.png", width=40, height=30)


def test_the_sheet_and_the_figures(tmp_path, relume, tiny, photo):
    done = relume(
        "compare", "a.png", "-s", "2", "-n", tiny, "--crop", "5,6,20,16", "--output-table", "a.json",
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["crop"] == {"x": 5, "y": 6, "width": 20, "height": 16}
    assert (document["scale"], document["photo_size"]) == (2, "40x30")
    names = [row["model"] for row in document["models"]]
    assert names[0] == "bicubic"
    assert names[-1] == "cfsr (tiny.safetensors)"
    assert all(name in done.stdout for name in names)
    # What is told of the model is what the model does.
    detail = Picture(pixels=read(photo).pixels[:, 6:22, 5:25].contiguous())
    output = load(tiny, device="cpu")(detail).pixels
    row = document["models"][-1]
    assert row["consistency_db"] == pytest.approx(consistency(detail.pixels, output, bits=8), abs=0.01)
    assert row["seconds"] > 0
    if sys.platform == "linux":
        assert row["memory_bytes"] >= 0
    # And it is in the sheet, right of bicubic.
    with Image.open(tmp_path / "a_compare.png") as sheet:
        wide = min(4, len(names)) * (40 + 8) + 8
        assert sheet.width == wide
        if len(names) <= 4:
            shown = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8)
            shown = shown.reshape(sheet.height, sheet.width, 3)[-40:-8, -48:-8].permute(2, 0, 1)
            assert (shown.float() - output.clamp(0, 1) * 255).abs().max() <= 0.51


def test_gray_with_alpha_at_16_bits_as_csv(tmp_path, relume, tiny):
    planes = torch.rand(2, 9, 7)
    planes[0] = 1000 / 65535  # no level of 8 bits, so whoever rounds to these is not exact
    write(Picture(pixels=planes[:1], alpha=planes[1:], bits=16), tmp_path / "b.png")
    done = relume(
        "compare", "b.png", "-s", "2", "-n", tiny, "-o", "sheet.png", "--output-table", "b.csv", cwd=tmp_path
    )
    assert done.returncode == 0
    assert done.stderr == "note: b.png: transparency is left out of the comparison\n"
    with (tmp_path / "b.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["model"] == "bicubic"
    assert float(rows[0]["consistency_db"]) >= 99
    assert list(rows[0]) == ["model", "engine", "seconds", "memory_bytes", "consistency_db"]
    assert size_of(tmp_path / "sheet.png")[0] == min(4, len(rows)) * (14 + 8) + 8


def test_a_model_of_another_scale_is_told_and_the_others_are_shown(
    tmp_path, relume, tiny, default_model, photo
):
    done = relume("compare", "a.png", "-n", tiny, "--crop", "0,0,8,8", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tiny} enlarges by 2, and models of x4 are compared")
    assert done.stderr.count("\n") == 1
    assert default_model in done.stdout
    assert (tmp_path / "a_compare.png").is_file()


def test_a_name_that_scales_share_is_its_variant_of_the_scale(tmp_path, relume, photo):
    if find_variant("cfsr-x2").weights_path is None:
        pytest.skip("cfsr-x2 comes without weights in this tree")
    done = relume(
        "compare", "a.png", "-s", "2", "-n", "cfsr", "--crop", "0,0,8,8", "-o", "b.png",
        "--output-table", "a.csv", cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    with (tmp_path / "a.csv").open() as file:
        names = [row["model"] for row in csv.DictReader(file)]
    assert names.count("cfsr-x2") == 1
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-s", "37"], ("no model of scale 37", "-n")),
        (["-o", "a.jpg"], ("a.jpg", "PNG")),
        (["-o", "a.png", "--overwrite"], ("a.png", "different names")),
        (["--output-table", "a.txt"], (".csv or .json",)),
        (["-o", "there.png"], ("there.png", "exists")),
        (["--crop", "30,0,20,20"], ("leaves the picture", "40x30")),
        (["-o", "nowhere/a.png"], ("nowhere", "does not exist")),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(tmp_path, refused, photo, options, says):
    (tmp_path / "there.png").write_bytes(b"kept")
    refused("compare", "a.png", *options, says=says)


def test_a_photo_that_is_none_is_refused(tmp_path, refused):
    (tmp_path / "a.png").write_text("no picture")
    refused("compare", "a.png", says=("a.png",))
