"""Weights that would run code when unpickled are refused, in every form, through the real command."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import seeds
import torch
from children import complaint

COMMAND = str(Path(sys.executable).with_name("relume"))
FORMS = ("bare", "old", "zip", "zip-inside", "script", "tar")


class Touch:
    """Its unpickling makes a file, by the shell."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        import os

        return os.system, (f"touch '{self.marker}'",)


def write_evil(path: Path, form: str, marker: Path) -> None:
    weights = {"layers.0.weight": torch.ones(2), "evil": Touch(marker)}
    match form:
        case "bare":
            path.write_bytes(pickle.dumps(weights))
        case "old" | "zip":
            torch.save(weights, path, _use_new_zipfile_serialization=form == "zip")
        case "zip-inside":
            # A sound file whose pickle alone was exchanged.
            sound = io.BytesIO(seeds.torch_file({"a": torch.ones(2)}, True))
            with zipfile.ZipFile(sound) as source, zipfile.ZipFile(path, "w") as target:
                for name in source.namelist():
                    evil = pickle.dumps({"params": Touch(marker)}, protocol=2)
                    target.writestr(name, evil if name.endswith("data.pkl") else source.read(name))
        case "script":
            with zipfile.ZipFile(path, "w") as target:
                target.writestr("archive/data.pkl", pickle.dumps(Touch(marker), protocol=2))
                target.writestr("archive/constants.pkl", pickle.dumps(Touch(marker), protocol=2))
                target.writestr("archive/version", "3\n")
        case _:
            with tarfile.open(path, "w") as target:
                for name in ("sys_info", "pickle", "storages", "tensors"):
                    content = pickle.dumps(Touch(marker), protocol=2)
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    target.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("form", FORMS)
def test_code_in_weights_never_runs(tmp_path, children, form):
    marker = tmp_path / "harm"
    weights = tmp_path / "evil.pth"
    write_evil(weights, form, marker)
    (tmp_path / "in.png").write_bytes(seeds.pictures("png")[0])
    before = weights.read_bytes()
    for command in (
        ("upscale", tmp_path / "in.png", "-n", weights, "-o", tmp_path / "out.png"),
        ("convert", weights, "-o", tmp_path / "out.safetensors"),
    ):
        outcome = children.run("relume", *command)
        assert not marker.exists()
        assert complaint(outcome, memory=64 << 20, quiet=True) is None, outcome
        assert outcome.status == 1
        assert str(weights) in outcome.err
    assert {entry.name for entry in tmp_path.iterdir()} == {"evil.pth", "in.png"}
    assert weights.read_bytes() == before


@pytest.mark.parametrize("form", ["old", "zip"])
def test_the_installed_command_refuses_code_in_one_line(tmp_path, form):
    marker = tmp_path / "harm"
    write_evil(tmp_path / "evil.pth", form, marker)
    (tmp_path / "in.png").write_bytes(seeds.pictures("png")[0])
    done = subprocess.run(
        [COMMAND, "upscale", "in.png", "-n", "evil.pth", "-o", "out.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, marker.exists()) == (1, "", False)
    (line,) = done.stderr.splitlines()
    assert "evil.pth is refused" in line
    assert "could run code" in line


@pytest.mark.parametrize("form", ["bare", "old", "zip"])
def test_the_files_would_do_harm_if_they_were_trusted(tmp_path, form):
    marker = tmp_path / "harm"
    write_evil(tmp_path / "evil.pth", form, marker)
    if form == "bare":
        pickle.loads((tmp_path / "evil.pth").read_bytes())
    else:
        torch.load(tmp_path / "evil.pth", weights_only=False)
    assert marker.exists()
