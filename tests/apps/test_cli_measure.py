"""`relume measure`: its figures in three forms, what cannot be measured, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import relume as package
from commanding import no_artefacts, picture_file
from relume.core.pictures import Picture, read, write
from relume.measures.blockiness import blockiness
from relume.measures.blur import blur
from relume.measures.gray import gray_levels
from relume.measures.niqe import MODEL_FILE, niqe
from relume.measures.protocols import protocol

BUNDLED = Path(package.__file__).with_name("apps") / "photos" / "astronaut.webp"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    write(Picture(pixels=read(BUNDLED).pixels[:, 100:320, 150:400].contiguous()), path)
    return path


def test_the_table_json_and_csv_say_the_same(tmp_path, relume, photo):
    shown = relume("measure", "photo.png", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    gray = gray_levels(read(photo).pixels)
    expected = {"niqe": niqe(gray), "blur": blur(gray), "blockiness": blockiness(gray).strength}
    for value in expected.values():
        assert f" {value:.3f} " in shown.stdout
    as_json = json.loads(relume("measure", "photo.png", "--json", cwd=tmp_path).stdout)
    done = relume("measure", "photo.png", "--csv", "--niqe-model", MODEL_FILE, cwd=tmp_path)
    as_csv = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(as_json) == len(as_csv) == 1
    assert as_json[0]["picture"] == as_csv[0]["picture"] == "photo.png"
    assert (as_json[0]["width"], as_json[0]["height"]) == (250, 220)
    for name, value in expected.items():
        assert as_json[0][name] == pytest.approx(value, abs=1e-12)
        assert float(as_csv[0][name]) == pytest.approx(value, abs=1e-12)
    assert as_json[0]["psnr"] is None
    assert as_csv[0]["psnr"] == ""


def test_beside_an_original(tmp_path, relume, photo):
    pixels = read(photo).pixels
    worse = (pixels * 255 + torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)) * 8) / 255
    write(Picture(pixels=worse.clamp(0, 1)), tmp_path / "worse.png")
    done = relume(
        "measure", "worse.png", "photo.png", "--against", "photo.png", "--json", "-m", "blur", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = json.loads(done.stdout)
    wanted = protocol("sr-y").measure(read(tmp_path / "worse.png").pixels, pixels, 0)
    assert first["psnr"] == pytest.approx(wanted["psnr"], abs=1e-9)
    assert first["ssim"] == pytest.approx(wanted["ssim"], abs=1e-9)
    assert 25 < first["psnr"] < 37
    assert (second["psnr"], second["ssim"]) == ("inf", 1)
    assert first["niqe"] is None
    # The same from a folder of originals, and under another protocol.
    (tmp_path / "originals").mkdir()
    shutil.copy(photo, tmp_path / "originals" / "worse.png")
    done = relume("measure", "worse.png", "--against", "originals", "--protocol", "sr-rgb", cwd=tmp_path)
    wanted = protocol("sr-rgb").measure(read(tmp_path / "worse.png").pixels, pixels, 0)
    assert f" {wanted['psnr']:.3f} " in done.stdout
    assert "sr-rgb" in done.stdout


def test_the_perceptual_distance_of_a_users_encoder(tmp_path, relume, photo):
    torch.manual_seed(0)
    torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()).save(tmp_path / "encoder.pt")
    write(Picture(pixels=read(photo).pixels.flip(2).contiguous()), tmp_path / "turned.png")
    done = relume(
        "measure", "turned.png", "photo.png", "--against", "photo.png", "--encoder", "encoder.pt", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0
    first, second = json.loads(done.stdout)
    assert first["perceptual"] > 0.01
    assert second["perceptual"] == 0


def test_a_compressed_pictures_grid_is_told(tmp_path, relume, photo):
    write(read(photo), tmp_path / "a.jpg", quality=40)
    cut = read(tmp_path / "a.jpg").pixels[:, 3:, 6:].contiguous()
    write(Picture(pixels=cut), tmp_path / "b.png")
    done = relume("measure", "photo.png", "b.png", "--json", cwd=tmp_path)
    assert [row["grid"] for row in json.loads(done.stdout)] == [None, "2,5"]


def test_a_batch_goes_on_past_what_cannot_be_measured(tmp_path, relume, photo):
    folder = tmp_path / "some [bold]photos"
    folder.mkdir()
    shutil.copy(photo, folder / "a.png")
    (folder / "b.png").write_bytes(photo.read_bytes()[:400])
    picture_file(folder / "c.png", width=60, height=50)
    picture_file(folder / "d.png", width=9, height=9)
    write(Picture(pixels=torch.full((1, 120, 120), 0.5)), folder / "e.png")
    (tmp_path / "empty").mkdir()
    done = relume("measure", folder.name, "empty", "photo.png", "missing.jpg", "--json", cwd=tmp_path)
    assert done.returncode == 1
    rows = {Path(row["picture"]).name: row for row in json.loads(done.stdout)}
    assert list(rows) == ["a.png", "c.png", "d.png", "e.png", "photo.png"]
    assert rows["a.png"]["niqe"] == rows["photo.png"]["niqe"] > 0
    assert rows["c.png"]["niqe"] is None
    assert rows["c.png"]["blur"] > 0
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: ") and no_artefacts(line.replace("[bold]", "")) for line in lines)
    about = {
        name: [line for line in lines if name in line]
        for name in ("b.png", "c.png", "d.png", "e.png", "empty", "missing.jpg")
    }
    assert {name: len(each) for name, each in about.items()} == {
        "b.png": 1, "c.png": 1, "d.png": 3, "e.png": 2, "empty": 1, "missing.jpg": 1,
    }  # fmt: skip
    assert len(lines) == 9
    assert "NIQE needs at least 96x96 pixels and this picture has 60x50" in about["c.png"][0]
    assert "or ask only for -m blur, -m blockiness" in about["c.png"][0]
    assert "flat" in about["e.png"][0]
    quiet = relume("measure", folder / "c.png", "-m", "blur", "-m", "blockiness", cwd=tmp_path)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "niqe" not in quiet.stdout.splitlines()[2]


def test_an_original_that_does_not_fit(tmp_path, relume, photo):
    picture_file(tmp_path / "other.png", width=40, height=40)
    done = relume("measure", "photo.png", "--against", "other.png", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "error: photo.png is 250x220 RGB but its original other.png is 40x40 RGB; "
        "PSNR and SSIM need two alike\n"
    )
    assert "250x220" in done.stdout
    (tmp_path / "folder").mkdir()
    done = relume("measure", "photo.png", "--against", "folder", "-m", "blur", cwd=tmp_path)
    assert done.stderr == (
        "error: photo.png: no original is called photo in folder; name the original itself\n"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--json", "--csv"), ("leave one out",)),
        (("-m", "blurr"), ("'blurr'", "'blur'")),
        (("--against", "gone.png"), ("gone.png", "check the path")),
        (("--niqe-model", "photo.png"), ("photo.png",)),
        (("--layer", "relu1_2"), ("--encoder",)),
        (("--protocol", "sr-rgb"), ("--protocol", "--against")),
        (("--protocol", "cube", "--against", "photo.png"), ("cube measures cubes", "sr-y or sr-rgb")),
        (("--niqe-model", "photo.png", "-m", "blur"), ("--niqe-model", "add -m niqe")),
    ],
)
def test_refused_before_the_work(refused, photo, options, says):
    refused("measure", "photo.png", *options, says=says)
