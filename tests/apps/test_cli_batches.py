"""`relume upscale` with any size, over many pictures: found, resumed, watched, spread, and told of."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch

from commanding import COMMAND, content, environment, no_artefacts, picture_file, size_of
from relume.core.pictures import Picture, write

MANIFEST = ".relume-job.sqlite"


@contextlib.contextmanager
def started(*args: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *map(str, args)], cwd=cwd, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def outputs(folder: Path) -> dict[str, bytes | None]:
    """All that lies in a folder but its manifest, hidden things too."""
    return {name: data for name, data in content(folder).items() if not name.startswith(MANIFEST)}


@pytest.mark.parametrize(
    ("args", "name", "size"),
    [
        (["-s", "2.5"], "a_x2.5.png", (30, 23)),
        (["--width", "30"], "a_w30.png", (30, 23)),
        (["--fit", "100x20"], "a_fit100x20.png", (27, 20)),
        (["--megapixels", "0.0012"], "a_0.0012mp.png", (40, 30)),
        (["--width", "20", "--height", "40", "-o", "b.png"], "b.png", (20, 40)),
        (["-s", "0.5"], "a_x0.5.png", (6, 5)),
    ],
)
def test_any_size_and_what_is_said(tmp_path, relume, tiny, args, name, size):
    picture_file(tmp_path / "a.png")
    done = relume("upscale", "a.png", "-n", tiny, *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert size_of(tmp_path / name) == size
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", name}  # no manifest for one picture
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"a.png → {name}  12x9 → {size[0]}x{size[1]}, ")
    assert "torch on cpu, consistency " in line
    ran = "resampled" if "0.5" in args else "cfsr (tiny.safetensors)"
    factor = max(size[0] / 12, size[1] / 9)
    chain = " then ".join([ran] * max(1, math.ceil(math.log2(factor))))
    assert f", {chain}, torch" in line
    noted = "0.5" in args or "--height" in args
    assert (len(done.stderr.splitlines()), done.stderr.startswith("note: a.png: ")) == (noted, noted)


def test_what_pictures_held_is_kept_at_any_size_faithfully_and_in_little_memory(tmp_path, relume, tiny):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 40, 30, generator=generator)
    alpha = torch.rand(1, 40, 30, generator=generator)
    write(Picture(pixels=pixels[:1]), tmp_path / "gray.png")
    write(Picture(pixels=pixels, alpha=alpha, bits=16), tmp_path / "deep.tif")
    done = relume(
        "upscale", "gray.png", "deep.tif", "-n", tiny, "-s", "1.5", "--ensemble", "--faithful",
        "--memory", "1GiB", "--threads", "1", "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    gray, deep = (
        pyvips.Image.new_from_file(str(tmp_path / "out" / name)) for name in ("gray.png", "deep.tif")
    )
    assert (gray.width, gray.height, gray.bands, gray.format) == (45, 60, 1, "uchar")
    assert (deep.width, deep.height, deep.bands, deep.format) == (45, 60, 4, "ushort")
    assert len(np.unique(deep.numpy() & 255)) > 100


def test_patterns_and_trees_are_mirrored(tmp_path, relume, tiny):
    for name in ("top.png", "one/a.png", "one/two/b.png", "one/two/c.jpg", "three/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        picture_file(tmp_path / "in" / name)
    done = relume("upscale", "in/**/*.png", "-n", tiny, "-o", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    made = ["one", "one/a.png", "one/two", "one/two/b.png", "three", "three/a.png", "top.png"]
    assert sorted(outputs(tmp_path / "out")) == made
    # The same folder, asked for otherwise: what is done stays done.
    done = relume("upscale", "-r", "in", "-n", tiny, "-o", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("1 enlarged, 0 failed, 4 done before; ")
    assert sorted(outputs(tmp_path / "out")) == sorted([*made, "one/two/c.jpg"])
    # Not at all with other settings, as that would be seen nowhere in the outputs.
    before = content(tmp_path / "out")
    done = relume("upscale", "-r", "in", "-n", tiny, "-o", "out", "--ensemble", cwd=tmp_path)
    assert done.returncode == 1
    assert "made earlier with other settings (ensemble False, now True)" in done.stderr
    assert outputs(tmp_path / "out") == {name: data for name, data in before.items() if name != MANIFEST}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_killed_batch_is_resumed_by_the_same_command_or_by_its_manifest(tmp_path, relume, tiny):
    (tmp_path / "in").mkdir()
    for number in range(8):
        picture_file(tmp_path / "in" / f"{number}.png", 400, 300, seed=number)
    args = ("upscale", "in", "-n", tiny, "-s", "1.5", "--suffix", "-big")
    assert relume(*args, "-o", "whole", cwd=tmp_path).returncode == 0
    expected = outputs(tmp_path / "whole")
    for way in ("again", "resume"):
        with started(*args, "-o", way, cwd=tmp_path) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        left = outputs(tmp_path / way)
        assert all(data == expected[name] for name, data in left.items() if not name.startswith(".relume-"))
        told = relume("jobs", way, cwd=tmp_path).stdout
        assert f"go on with: relume upscale --resume {way}/{MANIFEST}" in told
        again = [*args, "-o", way] if way == "again" else ["upscale", "--resume", f"{way}/{MANIFEST}"]
        done = relume(*again, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert " 0 failed, " in done.stdout.splitlines()[-1]
        assert " done before; " in done.stdout.splitlines()[-1]
        assert outputs(tmp_path / way) == expected
    assert relume("jobs", "again", cwd=tmp_path).stdout == "8 enlarged, 0 failed, 0 skipped, 0 left\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals work otherwise there")
def test_ctrl_c_says_how_to_go_on(tmp_path, relume, tiny):
    (tmp_path / "in").mkdir()
    for number in range(9):
        picture_file(tmp_path / "in" / f"{number}.png", 500, 400)
    with started("upscale", "in", "-n", tiny, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.splitlines() == [
        "note: stopped; the same command goes on with what is left, and so does: "
        f"relume upscale --resume in/{MANIFEST}"
    ]
    names = {path.name for path in (tmp_path / "in").iterdir()}
    assert not [name for name in names if name.startswith(".relume-") and name != MANIFEST]
    done = relume("upscale", "--resume", f"in/{MANIFEST}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "in").glob("*_x2.png")} == {f"{n}_x2.png" for n in range(9)}


def test_many_failures_are_told_in_short_and_listed_in_full(tmp_path, relume, tiny):
    (tmp_path / "in").mkdir()
    for number in range(25):
        (tmp_path / "in" / f"{number:02}.jpg").write_text("no picture\n" * 9)
    picture_file(tmp_path / "in" / "good.png")
    done = relume("upscale", "in", "-n", tiny, "-o", "out", "--report", "all.csv", cwd=tmp_path)
    assert done.returncode == 1
    *errors, note = done.stderr.splitlines()
    assert len(errors) == 20
    assert all(line.startswith("error: in/") and "this is text" in line for line in errors)
    assert note == f"note: 5 more failed; all of them: relume jobs out/{MANIFEST}"
    assert done.stdout.splitlines()[-1].startswith("1 enlarged, 25 failed; ")
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == 25 * ["failed"] + ["done"]
    assert all("this is text" in row["reason"] for row in rows[:-1])
    assert (rows[-1]["target"], rows[-1]["to"], rows[-1]["models"]) == (
        "out/good.png", "24x18", "cfsr (tiny.safetensors)"
    )  # fmt: skip
    told = relume("jobs", "out", "--report", "all.json", cwd=tmp_path)
    assert len(told.stderr.splitlines()) == 25
    assert told.stdout.startswith("1 enlarged, 25 failed, 0 skipped, 0 left\n")
    listed = json.loads((tmp_path / "all.json").read_text())
    assert [row["state"] for row in listed] == [row["state"] for row in rows]
    # Once mended, only they are done.
    for number in range(25):
        (tmp_path / "in" / f"{number:02}.jpg").unlink()
        picture_file(tmp_path / "in" / f"{number:02}.jpg")
    done = relume("upscale", "in", "-n", tiny, "-o", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("25 enlarged, 0 failed, 1 done before; ")


@pytest.mark.skipif(sys.platform == "win32", reason="signals work otherwise there")
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_a_watched_folder(tmp_path, tiny, ended_by):
    (tmp_path / "in").mkdir()
    with started("upscale", "in", "--watch", "-n", tiny, "-o", "out", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == "note: waiting for pictures in in; Ctrl-C ends it\n"
        (tmp_path / "in" / "bad.png").write_text("text")
        assert "this is text" in process.stderr.readline()
        picture_file(tmp_path / "in" / "a.png")
        assert process.stdout.readline().startswith("in/a.png → out/a.png  12x9 → 24x18")
        process.send_signal(ended_by)
        assert process.stdout.read().startswith("1 enlarged, 1 failed; ")
        assert process.stderr.read() == ""
    assert process.returncode == 1  # as one failed
    assert size_of(tmp_path / "out" / "a.png") == (24, 18)
    assert sorted(outputs(tmp_path / "out")) == ["a.png"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["a.png", "-s", "2", "--width", "30"], ("not scale and width at once",)),
        (["a.png", "--fit", "big"], ("1920x1080", "'big'")),
        (["a.png", "-s", "0"], ("makes no picture",)),
        (["a.png", "-s", "nan"], ("scale",)),
        (["a.png", "--width", "9000"], ("a.png", "limit of 64")),
        (["a.png", "--memory", "much"], ("2GiB", "'much'")),
        (["a.png", "--memory", "4000"], ("2GiB", "'4000'")),
        (["a.png", "--memory", "1MB"], ("--memory", "allow more")),
        (["a.png", "--precision", "fp8"], ("unknown precision 'fp8'", "fp")),
        (["a.png", "--engine", "steam"], ("unknown engine 'steam'",)),
        (["a.png", "--effort", "0.5"], ("knows no effort",)),
        (["a.png", "--watch"], ("--watch", "a.png is none")),
        (["a.png", "--resume", "x.sqlite"], ("--resume", "leave out a.png")),
        (["--resume", "x.sqlite"], ("x.sqlite", "no such manifest")),
        (["--resume", "a.png"], ("a.png", "no manifest")),
        (["a.png", "--report", "r.txt"], ("r.txt", ".csv or .json")),
        (["a.png", "--job", "no/where.sqlite"], ("no/where.sqlite", "another place")),
        (["*.tif", "-o", "out"], ("*.tif: matches no picture",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nonsense_is_one_line_and_nothing_is_left(tmp_path, refused, tiny, args, says):
    picture_file(tmp_path / "a.png")
    model = [] if "--resume" in args else ["-n", tiny]
    refused("upscale", *args, *model, says=says)


def test_a_resumed_batch_wants_the_same_weights(tmp_path, relume, tiny):
    model = tmp_path / "model.safetensors"
    model.write_bytes(tiny.read_bytes())
    (tmp_path / "in").mkdir()
    picture_file(tmp_path / "in" / "a.png")
    args = ("upscale", "in", "-n", "model.safetensors", "-o", "out")
    assert relume(*args, cwd=tmp_path).returncode == 0
    from relume.core.checkpoints import read_checkpoint, write_checkpoint

    header, state = read_checkpoint(model)
    write_checkpoint(model, {name: 0.5 * value for name, value in state.items()}, header)
    for again in (args, ("upscale", "--resume", f"out/{MANIFEST}")):
        done = relume(*again, cwd=tmp_path)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "weights" in line
        assert no_artefacts(line)


def test_on_a_cluster_of_this_machine_as_without_it(tmp_path, relume, tiny):
    pytest.importorskip("ray", reason="working on a cluster needs the extra `ray`")
    (tmp_path / "in").mkdir()
    for number in range(3):
        picture_file(tmp_path / "in" / f"{number}.png", 50, 40, seed=number)
    (tmp_path / "in" / "bad.png").write_text("text")
    # A relative path to the model, as a worker has another current folder.
    model = os.path.relpath(tiny, tmp_path)
    alone = relume("upscale", "in", "-n", model, "-o", "alone", cwd=tmp_path)
    spread = relume("upscale", "in", "-n", model, "-o", "spread", "--ray", "local", cwd=tmp_path)
    for done in (alone, spread):
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: in/bad.png: ")
        assert done.stdout.splitlines()[-1].startswith("3 enlarged, 1 failed; ")
    assert outputs(tmp_path / "spread") == outputs(tmp_path / "alone")


def test_a_second_command_on_a_batch_waits_its_turn(tmp_path, relume, tiny):
    from relume.infer.batch.manifest import Manifest

    (tmp_path / "in").mkdir()
    picture_file(tmp_path / "in" / "a.png")
    with Manifest.open(tmp_path / "in" / MANIFEST, {}):
        began = time.monotonic()
        done = relume("upscale", "in", "-n", tiny, cwd=tmp_path)
    assert done.returncode == 1
    assert "another relume is at work on this batch" in done.stderr
    assert time.monotonic() - began < 60
    assert done.stdout == ""
