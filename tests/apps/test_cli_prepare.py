"""`relume prepare`, as a user runs it."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from torch.nn import functional as F

from relume.core.pictures import Picture, write


@pytest.fixture
def photos(tmp_path):
    for index, name in enumerate(("a.png", "[b].png", "c.png")):
        torch.manual_seed(index)
        forms = F.interpolate(torch.rand(1, 3, 5, 5), (300, 280), mode="bicubic")[0].clamp(0, 1)
        (tmp_path / "in").mkdir(exist_ok=True)
        write(Picture(pixels=forms), tmp_path / "in" / name)
    (tmp_path / "in" / "c.png").write_bytes((tmp_path / "in" / "c.png").read_bytes()[:900])
    (tmp_path / "in" / "d.gif").write_text("GIF8")
    return tmp_path / "in"


def test_bad_photos_are_said_with_their_reasons_and_the_rest_is_cut(relume, photos, tmp_path):
    command = ("prepare", "in", "-o", "out", "--side", 128, "--overlap", 32, "--report", "all.csv")
    done = relume(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "refused: c.png: the PNG data is damaged or cut short" in done.stdout
    assert "taken" in done.stdout
    assert "broken or unreadable" in done.stdout
    assert "left out, as they are no pictures that can be read: 1 .gif" in done.stderr
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [row["state"] for row in index["photos"]] == ["taken", "taken", "refused"]
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert [row["pieces"] for row in rows] == ["9", "9", "0"]
    again = relume(*command, cwd=tmp_path)
    assert again.stdout == done.stdout
    assert "looking at 1 photos" in again.stderr  # what could not be read, once more


def test_a_report_does_not_take_the_place_of_what_a_training_reads(relume, refused, photos, tmp_path):
    done = relume("prepare", "in", "-o", "out", "--side", 128, "--overlap", 32, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "out" / "index.json").read_bytes()
    for name in ("out/index.json", "in/../out/Index.JSON", "out/pieces/a.csv"):
        refused("prepare", "in", "--check-only", "--report", name, says=(name, "own files"))
    assert (tmp_path / "out" / "index.json").read_bytes() == index
    done = relume("prepare", "in", "--check-only", "--report", "out/all.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_checking_only_changes_nothing(relume, photos, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = relume("prepare", "in", "--check-only", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "refused: c.png" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_taken_is_a_failure(relume, photos, tmp_path):
    done = relume("prepare", "in", "--check-only", "--least", 1000, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("error: no photo was taken\n")
    assert done.stdout.count("refused: ") == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("in",), ("-o", "--check-only")),
        (("in", "-o", "out", "--check-only"), ("one of both",)),
        (("none", "-o", "out"), ("none is not a folder",)),
        (("in", "-o", "in"), ("choose another -o",)),
        (("in", "-o", "in/a.png"), ("in/a.png is a file",)),
        (("in", "-o", "out", "--overlap", 512), ("overlap of 512", "pieces of 512")),
        (("in", "-o", "out", "--report", "a.txt"), ("a.txt", ".csv or .json")),
        (("in", "-o", "out", "--without", "none"), ("none is not a folder",)),
        (("in", "-o", ".", "--report", "index.json"), ("index.json", "own files", "choose another name")),
    ],
)
def test_nonsense_is_refused(refused, photos, arguments, says):
    refused("prepare", *arguments, says=says)


def test_a_full_disk_is_told_in_one_line(relume, photos, small_disk, tmp_path):
    done = relume("prepare", "in", "-o", small_disk / "out", "--side", 256, "--overlap", 200, cwd=tmp_path)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "error" in line] == done.stderr.splitlines()[-1:]
    assert "the disk is full" in done.stderr
    assert not list(small_disk.rglob("*.part"))


def test_a_form_that_does_not_exist_is_told_with_its_option(relume, photos, tmp_path):
    done = relume("prepare", "in", "-o", "out", "--as", "bmp", cwd=tmp_path)
    assert done.returncode == 2
    assert "--as" in done.stderr
    assert "'bmp' is not one of 'npy', 'png'" in done.stderr
    assert not (tmp_path / "out").exists()
