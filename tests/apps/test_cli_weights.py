"""`-n NAME-or-FILE` and `relume convert`: a weights file is used as it should be or refused in one line."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from commanding import authors_name, picture_file
from relume.core.checkpoints import read_checkpoint, read_header
from relume.core.errors import CheckpointError, ConfigError
from relume.models import zoo


class Evil:
    """Unpickled by plain pickle, this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def on_trust(path: object) -> str:
    """What is said once of the small network's authors' file, and of what is made from it no more."""
    return (
        "note: taken on trust, as the file does not show it: image_range 1.0 "
        f"(change: relume convert {path} --set NAME=VALUE)\n"
    )


def test_ours_and_the_authors_file_give_the_same_picture(tmp_path, relume, weights):
    picture_file(tmp_path / "a.png")
    (tmp_path / "cfsr-x4").mkdir()  # a run's folder, say; it does not hide the model of that name
    done = relume("convert", weights / "tiny.pth", "-o", "made [x].safetensors", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, on_trust(weights / "tiny.pth"))
    assert "made [x].safetensors  cfsr, a variant without a name, 2,556 parameters" in done.stdout
    header = read_header(tmp_path / "made [x].safetensors")
    assert header is not None
    assert (header.model, header.config["scale"], header.config["width"]) == ("cfsr", 2, 8)
    assert (header.trained["file"], header.trained["on_trust"]) == ("tiny.pth", {"image_range": 1.0})
    for number, file in enumerate(
        (weights / "tiny.pth", "made [x].safetensors", weights / "tiny.safetensors")
    ):
        done = relume("upscale", "a.png", "-n", file, "-o", f"{number}.png", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "" if number else on_trust(file))
    assert len({(tmp_path / f"{number}.png").read_bytes() for number in range(3)}) == 1


def _malicious(path: Path, folder: Path) -> None:
    torch.save({"params": {"weight": Evil(folder / "harm")}}, path)


def _altered(path: Path, tiny: Path) -> None:
    """The checkpoint with one bit of one weight turned over."""
    data = bytearray(tiny.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _write_bad(kind: str, folder: Path, weights: Path) -> Path:
    """A weights file that cannot be used."""
    ours, theirs = (weights / "tiny.safetensors").read_bytes(), (weights / "tiny.pth").read_bytes()
    path = folder / f"{kind}.{'pth' if 'pth' in kind else 'safetensors'}"
    match kind:
        case "altered":
            _altered(path, weights / "tiny.safetensors")
        case "stranger":
            save_file({"transformer.0.weight": torch.rand(3, 3), "head.bias": torch.rand(3)}, path)
        case "truncated":
            path.write_bytes(ours[:-100])
        case "empty":
            path.write_bytes(b"")
        case "text" | "text-pth":
            path.write_text("these are no weights\n" * 20)
        case "page-pth":
            path.write_text(f"<!DOCTYPE html><title>Not found: Größe</title>{'ä' * 600}", encoding="utf-8")
        case "picture-pth":
            picture_file(folder / "picture.png")
            (folder / "picture.png").rename(path)
        case "garbled-pth":
            path.write_bytes(b"\x80\x02hi.")
        case "malicious-pth":
            _malicious(path, folder)
        case "pickle-pth":
            path.write_bytes(pickle.dumps(Evil(folder / "harm")))
        case "truncated-pth":
            path.write_bytes(theirs[: len(theirs) // 2])
        case "list-pth":
            torch.save([torch.rand(3)], path)
        case "incomplete-pth":
            state = torch.load(weights / "tiny.pth", weights_only=True)["params"]
            del state["conv_first.weight"]
            torch.save(state, path)
        case "folder":
            path.mkdir()
    return path


BAD = {
    "altered": "do not match the fingerprint",
    "stranger": "no architecture that relume knows",
    "truncated": "not a readable safetensors file",
    "empty": "is empty (0 bytes)",
    "text": "not a readable safetensors file",
    "text-pth": "is a text, not weights: it begins with 'these are no weights these are",
    "page-pth": "is a text, not weights: it begins with '<!DOCTYPE html>",
    "picture-pth": "is no PyTorch weights file, by its first bytes",
    "garbled-pth": "it refers to a part that it does not hold",
    "malicious-pth": "could run code",
    "pickle-pth": "could run code",
    "truncated-pth": "truncated or of another kind",
    "list-pth": "holds a list",
    "incomplete-pth": "looks like cfsr but has no conv_first.weight",
    "folder": "is a folder",
    "missing-pth": "there is no file",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_weights_file_is_refused(tmp_path, refused, weights, kind):
    picture_file(tmp_path / "a.png")
    path = _write_bad(kind, tmp_path, weights)
    with pytest.raises(CheckpointError) as caught:
        zoo.load(path)
    assert str(path) in str(caught.value)
    assert BAD[kind] in str(caught.value)
    # Both commands come to that by the same way, so they share out the kinds that matter most.
    if kind in ("malicious-pth", "truncated-pth", "stranger"):
        refused("convert", path.name, "-o", "out.safetensors", says=(path.name, BAD[kind]))
    if kind in ("malicious-pth", "altered", "truncated", "text", "empty", "missing-pth"):
        refused("upscale", "a.png", "-n", path.name, says=(path.name, BAD[kind]))
    assert not (tmp_path / "harm").exists()


def test_the_malicious_file_would_do_harm_if_it_were_trusted(tmp_path):
    _malicious(tmp_path / "a.pth", tmp_path)
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert (tmp_path / "harm").is_dir()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["-n", "cfsr-x44"], ("'cfsr-x44'", "did you mean 'cfsr-x4'", "relume models")),
        (["-n", "cfsr-x3.safetensors"], ("cfsr-x3.safetensors", "did you mean the model 'cfsr-x3'")),
        (["-s", "0"], ("scale 0 makes no picture",)),
        (["-s", "65"], ("65 times larger", "limit of 64")),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_a_name_or_a_scale_that_is_not_there(tmp_path, refused, args, says):
    picture_file(tmp_path / "a.png")
    refused("upscale", "a.png", *args, says=says)


def test_convert_keeps_what_exists_and_knows_its_own(tmp_path, refused, relume, weights):
    theirs = tmp_path / "tiny.pth"
    theirs.write_bytes((weights / "tiny.pth").read_bytes())
    (tmp_path / "ours.safetensors").write_bytes((weights / "tiny.safetensors").read_bytes())
    (tmp_path / "tiny.safetensors").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    named = tmp_path / "authors.safetensors"
    save_file(
        {authors_name(key): value for key, value in load_file(weights / "tiny.safetensors").items()}, named
    )
    refused("convert", "tiny.pth", says=("tiny.safetensors", "kept", "--overwrite"))
    refused("convert", "tiny.pth", "-o", "folder", "--overwrite", says=("folder", "is a folder"))
    refused("convert", "tiny.pth", "-o", "no/t.safetensors", says=("no/t.safetensors", "folder"))
    refused("convert", "tiny.pth", "-o", "t.pth", says=("t.pth", ".safetensors"))
    refused("convert", "ours.safetensors", "-o", "t.safetensors", says=("relume checkpoint already", "-n"))
    refused("convert", named.name, "--overwrite", says=(named.name, "input itself"))
    done = relume("convert", named.name, "-o", "tiny.safetensors", "--overwrite", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, on_trust(named.name))
    assert read_checkpoint(tmp_path / "tiny.safetensors")[0].model == "cfsr"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("image_rang=2", ("'image_rang'", "did you mean 'image_range'")),
        (
            "scale=4",
            ("tiny.pth", "looks like cfsr but does not fit", "leave out what is set (scale)"),
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_setting_that_is_not_there_or_cannot_be(tmp_path, refused, weights, setting, says):
    refused("convert", weights / "tiny.pth", "-o", "t.safetensors", "--set", setting, says=says)


def test_a_setting_that_weights_do_not_show_is_kept(tmp_path, relume, weights):
    done = relume(
        "convert", weights / "tiny.pth", "-o", "t.safetensors", "--set", "image_range=2", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    header = read_header(tmp_path / "t.safetensors")
    assert header is not None
    assert header.config["image_range"] == 2
    assert "on_trust" not in header.trained


def test_a_full_disk_leaves_the_older_checkpoint_and_no_half_one(tmp_path, refused, weights):
    target = tmp_path / "t.safetensors"
    target.write_bytes(b"older weights")
    refused(
        "convert", weights / "tiny.pth", "-o", target, "--overwrite",
        says=("t.safetensors", "choose another folder"), limits={"RLIMIT_FSIZE": 2_000},
    )  # fmt: skip


def test_weights_under_another_ending_are_known_by_their_content(tmp_path, weights):
    (tmp_path / "ours.ckpt").write_bytes((weights / "tiny.safetensors").read_bytes())
    (tmp_path / "theirs").write_bytes((weights / "tiny.pth").read_bytes())
    assert zoo.load(tmp_path / "ours.ckpt")[1].model == "cfsr"
    assert zoo.load(tmp_path / "theirs")[1].trained["by"] == "the authors"


def _loads_or_is_refused(path: Path) -> bool:
    """Whether a file loads; anything but a refusal in one line is a failure of the test."""
    try:
        zoo.load(path)
    except (CheckpointError, ConfigError) as error:
        message = str(error)
    else:
        return True
    assert str(path) in message
    assert "\n" not in message
    return False


@pytest.mark.parametrize(
    "field", ["format", "model", "variant", "config", "steps", "trained", "measured", "sha256"]
)
def test_a_header_with_a_part_of_the_wrong_kind_is_refused(tmp_path, tiny, field):
    from safetensors import safe_open

    with safe_open(tiny, "pt") as file:
        header = json.loads(file.metadata()["relume"])
    path = tmp_path / "a.safetensors"
    state = load_file(tiny)
    for value in (None, 5, "x", ["x"], [1], {"a": 1}):
        save_file(state, path, metadata={"relume": json.dumps({**header, field: value})})
        harmless = isinstance(value, {"variant": str | None, "trained": dict}.get(field, ()))
        assert _loads_or_is_refused(path) == harmless, value


def test_authors_weights_of_any_shape_load_or_are_refused(tmp_path, weights):
    sound = torch.load(weights / "tiny.pth", weights_only=True)["params"]
    path = tmp_path / "a.pth"
    for key in sound:
        for shape in (None, (), (0,), (4, 4), (2, 2, 2, 2, 2)):
            state = dict(sound)
            if shape is None:
                del state[key]
            else:
                state[key] = torch.zeros(shape)
            torch.save(state, path)
            assert not _loads_or_is_refused(path), (key, shape)


def test_changed_bytes_of_weights_load_or_are_refused(tmp_path, weights):
    import random

    rng = random.Random(0)
    legacy = tmp_path / "legacy.pth"
    torch.save(
        torch.load(weights / "tiny.pth", weights_only=True), legacy, _use_new_zipfile_serialization=False
    )
    for source in (weights / "tiny.safetensors", weights / "tiny.pth", legacy):
        data = source.read_bytes()
        path = tmp_path / f"changed{source.suffix}"
        for _ in range(60):
            changed = bytearray(data)
            for _ in range(rng.choice([1, 2, 8])):
                changed[rng.randrange(rng.choice([200, 2000, len(data)]))] = rng.choice(
                    [0, 255, rng.randrange(256)]
                )
            path.write_bytes(changed[: rng.randrange(len(data))] if rng.random() < 0.3 else changed)
            _loads_or_is_refused(path)
