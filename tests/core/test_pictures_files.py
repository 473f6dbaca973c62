"""Outputs are whole or absent, kept unless told otherwise, and every refusal is one line."""

from __future__ import annotations

import dataclasses
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
import torch
from pictures_making import noise

from relume.core.errors import OutputExistsError, PictureError
from relume.core.pictures import Picture, formats, read, write

SMALL = Picture(pixels=noise(3, 16, 16))

WRITER = """
import resource, sys, torch
from relume.core.errors import PictureError
from relume.core.pictures import Picture, write
limit = int(sys.argv[2])
picture = Picture(pixels=torch.rand(3, 400, 400))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write(picture, sys.argv[1], overwrite=True)
    print("written")
except PictureError as error:
    print(error)
"""


def run(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_an_existing_output_is_kept(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="kept"):
        write(SMALL, path)
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_an_existing_output_is_replaced_when_asked(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write(SMALL, path, overwrite=True)
    assert torch.equal(read(path).pixels, SMALL.pixels)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_new_file_gets_the_usual_permissions(tmp_path):
    write(SMALL, tmp_path / "a.png")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to(tmp_path / "real" / "a.png")
    with pytest.raises(OutputExistsError):
        write(SMALL, tmp_path / "link.png")
    write(SMALL, tmp_path / "link.png", overwrite=True)
    assert (tmp_path / "link.png").is_symlink()
    assert read(tmp_path / "real" / "a.png").size == "16x16"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing/a.png", "does not exist"),
        ("folder.png", "is a folder"),
        ("file/a.png", "does not exist"),
        ("a.gif", "use one of .png"),
        ("n" * 300 + ".png", "too long"),
        ("a\0b.png", "cannot be written"),
    ],
)
def test_a_target_that_cannot_be_is_refused_in_one_line(tmp_path, name, said):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PictureError) as caught:
        write(SMALL, tmp_path / name, overwrite=True)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.png"]


def test_the_longest_name_is_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    write(SMALL, path)
    assert read(path).size == "16x16"


@pytest.mark.parametrize("wish", [{"quality": 0}, {"quality": 101}, {"bits": 12}])
def test_wishes_out_of_range_are_refused(tmp_path, wish):
    with pytest.raises(PictureError, match="choose"):
        write(SMALL, tmp_path / "a.jpg", **wish)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="permissions work otherwise there")
def test_an_unwritable_folder_is_refused(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    code = (
        "import os, sys, torch\n"
        "from relume.core.errors import PictureError\n"
        "from relume.core.pictures import Picture, write\n"
        "if os.geteuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
        "try:\n    write(Picture(pixels=torch.zeros(3, 4, 4)), sys.argv[1])\n"
        "except PictureError as error:\n    print(error)\n"
    )
    if os.geteuid() == 0:  # root may write anywhere, so the child becomes nobody
        for parent in (tmp_path, *tmp_path.parents):
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o001)
            if parent == parent.parent or parent.name == "tmp":
                break
    done = run(code, folder / "a.png")
    assert "may not be written" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("suffix", "older"), [(".png", None), (".tif", b"precious")])
def test_a_file_that_may_not_grow_leaves_nothing_half_written(tmp_path, suffix, older):
    pytest.importorskip("resource")
    path = tmp_path / f"a{suffix}"
    if older is not None:
        path.write_bytes(older)
    done = run(WRITER, path, 20_000)
    assert "cannot be written" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([] if older is None else [older])


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk; the limit on file sizes is tested in any case")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this system does not let a small disk be mounted")
    try:
        with pytest.raises(PictureError, match="disk is full") as caught:
            write(Picture(pixels=noise(3, 400, 400)), disk / "a.png")
        assert "\n" not in str(caught.value)
        assert list(disk.iterdir()) == []
        write(SMALL, disk / "b.png")  # room is there again
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_encoder_that_fails_leaves_nothing(tmp_path, monkeypatch):
    # The limits are checked first, so the encoder only sees this when they are lifted.
    lifted = dataclasses.replace(formats.ABILITIES["webp"], side=20_000)
    monkeypatch.setitem(formats.ABILITIES, "webp", lifted)
    with pytest.raises(PictureError, match="WebP encoder failed"):
        write(Picture(pixels=torch.zeros(1, 1, 16_384)), tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_writer_never_leaves_a_part_under_the_name(tmp_path):
    """Kill at many moments: the name shows the old content, the new one, or nothing."""
    code = (
        "import itertools, sys, torch\n"
        "from relume.core.pictures import Picture, write\n"
        "picture = Picture(pixels=torch.rand(3, 300, 300))\n"
        "print('ready', flush=True)\n"
        "for _ in itertools.count():\n    write(picture, sys.argv[1], overwrite=True)\n"
    )
    for attempt in range(4):
        path = tmp_path / f"{attempt}.tif"
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(0.02 + 0.037 * attempt)
            child.send_signal(signal.SIGKILL)
            child.wait(timeout=30)
        if path.exists():
            assert read(path).size == "300x300"
    assert all(entry.suffix in (".tif", ".part") for entry in tmp_path.iterdir())
    assert all(entry.name.startswith(".") for entry in tmp_path.iterdir() if entry.suffix == ".part")


def test_two_writers_of_one_name_do_not_mix(tmp_path):
    path = tmp_path / "a.png"
    pictures = [Picture(pixels=torch.full((3, 64, 64), level)) for level in (0.0, 1.0)]
    outcomes = []

    def work(picture):
        try:
            write(picture, path)
            outcomes.append("written")
        except OutputExistsError:
            outcomes.append("kept")

    threads = [threading.Thread(target=work, args=(picture,)) for picture in pictures * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["kept"] * 5 + ["written"]
    assert read(path).pixels.unique().numel() == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_importing_relume_stays_light():
    done = run(
        "import sys, relume; print([name for name in ('torch', 'numpy', 'pyvips') if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]"
