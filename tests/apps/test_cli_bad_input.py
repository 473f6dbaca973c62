"""Bad pictures, bad places and contradictions: one line, status 1, and nothing lost or half-written."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib

import pytest
import pyvips

from commanding import COMMAND, content, environment, no_artefacts, picture_file, size_of
from relume.infer.batch.manifest import FILE_NAME
from relume.infer.engines import engines


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bad_pictures(sound: bytes) -> dict[str, tuple[bytes, str]]:
    """File name to content and what must be said of it."""
    jpeg = pyvips.Image.black(64, 64, bands=3).jpegsave_buffer()
    return {
        "empty.png": (b"", "empty (0 bytes)"),
        "cut.png": (sound[: len(sound) // 2], "damaged or cut short"),
        "cut.jpg": (bytes(jpeg)[:-40], "damaged or cut short"),
        "text.jpg": (b"hello, no picture\n" * 30, "this is text"),
        "noise.webp": (bytes(range(256)) * 9, "not a picture"),
        "zero.png": (png_claiming(0, 7), "PNG"),
        "moving.png": (b"GIF89a" + bytes(30), "a GIF picture"),
        "bomb.png": (png_claiming(60_000, 60_000), "more than the limit of 500"),
    }


def test_a_batch_goes_on_past_every_kind_of_bad_picture(tmp_path, relume, tiny):
    folder = tmp_path / "in"
    folder.mkdir()
    sound = picture_file(tmp_path / "sound.png", 40, 30).read_bytes()
    bad = bad_pictures(sound)
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    for name in ("a.png", "z.png"):
        (folder / name).write_bytes(sound)
    (tmp_path / "hollow").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        bad["pipe.png"] = (b"", "a device or pipe")
    others = {"hollow": "holds no picture", "missing.png": "no such file", "n" * 300 + ".png": "too long"}
    done = relume(
        "upscale", "in", *others, *(["pipe.png"] if "pipe.png" in bad else []), "-o", "out", "-n", tiny,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: ") and no_artefacts(line) for line in lines)
    expected = {**{name: words for name, (_, words) in bad.items()}, **others}
    for name, words in expected.items():
        assert any(name in line and words in line for line in lines), name
    assert len(lines) == len(expected)
    assert done.stdout.splitlines()[-1].startswith(f"2 enlarged, {len(expected)} failed; ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [FILE_NAME, "a.png", "z.png"]
    assert size_of(tmp_path / "out" / "z.png") == (80, 60)


def test_a_single_bad_picture_is_one_line_and_no_folder_is_left(tmp_path, refused, tiny):
    (tmp_path / "text.jpg").write_bytes(b"hello, no picture")
    refused("upscale", "text.jpg", "-n", tiny, "-o", "fresh", says=("text.jpg", "this is text"))


def test_a_bomb_takes_no_memory(tmp_path, tiny):
    pytest.importorskip("resource")
    (tmp_path / "bomb.png").write_bytes(png_claiming(60_000, 60_000))
    # A process in between, as a child's peak begins with its parent's.
    code = (
        "import resource, subprocess, sys\n"
        "status = subprocess.call(sys.argv[1:])\n"
        "print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMAND, "upscale", "bomb.png", "-n", str(tiny)],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    status, peak = map(int, done.stdout.split())
    assert status == 1
    assert peak * (1 if sys.platform == "darwin" else 1024) < 800 * 2**20
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.png"]


# Libraries take address space before any work, how much differs widely between builds of PyTorch.
LEAN = {"MALLOC_ARENA_MAX": "1", "VIPS_CONCURRENCY": "1"}


@pytest.fixture(scope="module")
def begun_with():
    """The address space, in bytes, of a process that has begun."""
    if sys.platform != "linux":
        pytest.skip("only Linux keeps to a limit of address space")
    code = "import relume.apps.face; print(open('/proc/self/status').read().split('VmPeak:')[1].split()[0])"
    base = subprocess.run(
        [sys.executable, "-c", code], env=environment() | LEAN, capture_output=True, text=True, check=True
    )
    return int(base.stdout) * 1024


# "compile" is left out: its compiler's own processes need memory beyond this.
@pytest.mark.parametrize("engine", sorted(engines().keys() - {"compile"}))
def test_memory_that_does_not_suffice_is_said(tmp_path, relume, tiny, begun_with, engine):
    pyvips.Image.black(9_000, 9_000).pngsave(str(tmp_path / "wide.png"))
    limit = begun_with + 700_000_000  # enough to read it, not for 324 MB of output and a tile
    done = relume(
        "upscale", "wide.png", "-n", tiny, "--tile", "0", "--engine", engine, cwd=tmp_path,
        limits={"RLIMIT_AS": limit}, env=LEAN,
    )  # fmt: skip
    assert done.returncode == 1
    *notes, line = done.stderr.splitlines()
    assert all(note.startswith("note: memory ran out; going on with tiles of ") for note in notes)
    assert "wide.png: memory does not suffice" in line
    assert [path.name for path in tmp_path.iterdir()] == ["wide.png"]


def test_the_limit_of_pixels_can_be_chosen(tmp_path, refused, tiny):
    picture_file(tmp_path / "a.png", 40, 30)
    refused("upscale", "a.png", "-n", tiny, "--max-megapixels", "0.001", says=("a.png", "limit of 0.001"))


def test_an_existing_output_is_kept_byte_for_byte(tmp_path, refused, tiny):
    picture_file(tmp_path / "a.png")
    (tmp_path / "a_x2.png").write_bytes(b"precious")
    (tmp_path / "link.png").symlink_to("a_x2.png")
    refused("upscale", "a.png", "-n", tiny, says=("a_x2.png", "kept", "--overwrite"))
    refused("upscale", "a.png", "-n", tiny, "-o", "link.png", says=("a_x2.png", "kept", "--overwrite"))
    refused("upscale", "a.png", "a.png", "-n", tiny, says=("a_x2.png", "kept", "--overwrite"))


@pytest.mark.parametrize(
    "args",
    [
        ["a.png", "-o", "sub/../a.png"],
        ["a.png", "-o", "same.png"],  # a link to it
        [".", "-o", "."],
    ],
)
def test_an_input_is_never_overwritten(tmp_path, refused, tiny, args):
    """`--overwrite` allows replacing an older result; the photo itself is the only one there is."""
    picture_file(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    if "same.png" in args:
        (tmp_path / "same.png").symlink_to("a.png")
    refused("upscale", *args, "--overwrite", "-n", tiny, says=("a.png", "would be lost", "-o"))


def test_two_inputs_of_one_output_and_an_input_in_the_way(tmp_path, relume, tiny):
    for name in ("a.png", "a.jpg", "b.png", "b_x2.png"):
        picture_file(tmp_path / name)
    precious = (tmp_path / "b_x2.png").read_bytes()
    (tmp_path / "sub").mkdir()
    args = ["a.png", "a.png", "a.jpg", "b.png", "b_x2.png", "--format", "png", "--overwrite"]
    done = relume("upscale", *args, "-n", tiny, "--report", tmp_path / "sub/r.json", cwd=tmp_path)
    assert done.returncode == 1
    states = {row["source"]: row["state"] for row in json.loads((tmp_path / "sub/r.json").read_text())}
    assert states == {"a.png": "done", "a.jpg": "failed", "b.png": "failed", "b_x2.png": "done"}
    first, second = done.stderr.splitlines()
    assert first.startswith("error: a.jpg: would be written to a_x2.png, as a.png is;")
    assert second.startswith("error: b.png: would be written to b_x2.png, which is an input")
    assert (tmp_path / "b_x2.png").read_bytes() == precious
    assert done.stdout.splitlines()[-1].startswith("2 enlarged, 2 failed; ")
    assert {path.name for path in tmp_path.iterdir()} == {
        FILE_NAME, "sub", "a.png", "a.jpg", "b.png", "b_x2.png", "a_x2.png", "b_x2_x2.png"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["-o", "out.png", "a.png", "b.png"], ("out.png", "several pictures need a folder")),
        (["-o", "c.png/x.png", "a.png"], ("c.png/x.png",)),
        (["-o", "out.gif", "a.png"], ("'.gif'", ".png")),
        (["-o", "n" * 300 + ".png", "a.png"], ("too long",)),
        (["--format", "gif", "a.png"], ("'gif'", "jpeg")),
        (["-s", "65", "a.png"], ("a.png", "limit of 64")),
        ([], ("no picture given", "relume upscale photo.jpg")),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_requests_that_make_no_sense(tmp_path, refused, tiny, args, says):
    for name in ("a.png", "b.png", "c.png"):
        picture_file(tmp_path / name)
    refused("upscale", *args, "-n", tiny, says=says)


def test_usage_errors_have_status_2_and_no_traceback(tmp_path, relume):
    for args in (["upscale", "--quality", "0", "a.png"], ["upscale", "-s", "much", "a.png"], ["enlarge"]):
        done = relume(*args, cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert args[-1] in done.stderr or args[1] in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_closed(tmp_path, refused, tiny, closed_folder):
    picture_file(tmp_path / "a.png")
    refused("upscale", "a.png", "-n", tiny, "-o", closed_folder / "a.png", says=("closed", "choose another"))
    refused("upscale", "a.png", "-n", tiny, "-o", closed_folder / "new", says=("closed/new", "another -o"))


def test_a_folder_that_is_closed_to_a_checkpoint(refused, weights, closed_folder):
    refused("convert", weights / "tiny.pth", "-o", closed_folder / "t.safetensors", says=("closed", "choose"))


def test_a_folder_that_cannot_be_listed(tmp_path, relume, tiny):
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("root may list every folder")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o300)
    done = relume("upscale", "locked", "-n", tiny, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: locked: cannot be listed: ")


def test_a_file_that_may_not_grow_leaves_the_older_one_and_no_half_one(tmp_path, refused, tiny):
    picture_file(tmp_path / "a.png", 200, 200)
    (tmp_path / "b.tif").write_bytes(b"older result")
    refused(
        "upscale", "a.png", "-o", "b.tif", "--overwrite", "-n", tiny,
        says=("b.tif", "choose another folder"), limits={"RLIMIT_FSIZE": 20_000},
    )  # fmt: skip


def test_a_disk_that_fills_keeps_what_was_done(tmp_path, relume, tiny, small_disk):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, side in (("1.png", 12), ("2.png", 500), ("3.png", 12)):
        picture_file(folder / name, side, side)
    done = relume("upscale", "in", "-o", small_disk, "-n", tiny, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "2.png" in done.stderr
    assert "the disk is full" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("2 enlarged, 1 failed; ")
    assert sorted(content(small_disk)) == [FILE_NAME, "1.png", "3.png"]
    assert size_of(small_disk / "3.png") == (24, 24)


def test_the_demo_leaves_no_folder_when_it_cannot_begin(tmp_path, refused, tiny):
    refused("demo", "-n", "missing.safetensors", says=("missing.safetensors",))
    (tmp_path / "file").write_bytes(b"x")
    refused("demo", "-o", "file", "-n", tiny, says=("file", "choose another -o"))
