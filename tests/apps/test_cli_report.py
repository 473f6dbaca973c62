"""`relume report`, as a user runs it: a real training, and what is no run."""

from __future__ import annotations

import pytest
import torch

from relume.core.pictures import Picture, write


@pytest.fixture
def run(relume, tmp_path):
    """A short training with validation pictures."""
    torch.manual_seed(0)
    for folder, side in (("photos", 96), ("set", 48)):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png"):
            write(Picture(pixels=torch.rand(3, side, side)), tmp_path / folder / name)
    settings = {"steps": 8, "log_every": 2, "validate_every": 4, "threads": 1, "data.batch": 1,
                "data.patch": 12, "network.width": 8, "network.depths": "[1]"}  # fmt: skip
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    places = ("--data", tmp_path / "photos", "--validation", tmp_path / "set", "--run", "runs/mine")
    done = relume("train", "cfsr-x2", *places, *changes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "runs" / "mine"


def test_a_real_run_becomes_a_page(relume, run, tmp_path):
    done = relume("report", "runs/mine", "-o", "page.html", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "written: page.html\n", "")
    text = (tmp_path / "page.html").read_text()
    assert relume("report", "runs/mine", cwd=tmp_path).returncode == 0
    assert (run / "report.html").is_file()
    assert not (tmp_path / "report.html").exists()
    assert "finished: all 8 steps, weights written" in text
    assert text.count("<svg") >= 6
    assert text.count("data:image/webp") == 2 * (2 + 2 + 2)  # bicubic, original and two steps; two sheets
    assert str(tmp_path) not in text


def test_what_is_no_run_is_refused_in_one_line(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused("report", "empty", says=("empty is no run of relume train", "log.jsonl"))
    refused("report", "none", says=("none is not a folder",))
    refused("report", "empty", "-o", "page.pdf", says=("page.pdf", ".html"))


def test_a_page_that_cannot_be_written_is_told(refused, tmp_path, closed_folder):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    refused("report", tmp_path, "-o", closed_folder / "a.html", says=("a.html", "choose another"))
    refused("report", tmp_path, "-o", "no/a.html", says=("no/a.html", "does not exist"))
