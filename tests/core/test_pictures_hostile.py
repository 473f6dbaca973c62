"""Whatever a file holds, reading gives a picture or one line, and nothing on stderr."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import pyvips
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures_making import FORMATS, SRGB, full_picture, pillow_bytes, png_claiming, smooth, vips
from PIL import Image

from relume.core.errors import PictureError, RelumeError
from relume.core.pictures import Canvas, Picture, StoredPicture, read, write
from relume.core.pictures.formats import describe_stranger, sniff

MUTATIONS = 300
STARTS = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b""]
every_format = pytest.mark.parametrize("kind", FORMATS)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """One sound file of each format, with all metadata, as bytes."""
    folder = tmp_path_factory.mktemp("sound")
    files = {}
    for kind, suffix in FORMATS.items():
        alpha = torch.linspace(0, 1, 48 * 40).reshape(1, 48, 40) if kind != "jpeg" else None
        picture = full_picture(height=48, width=40).replace(pixels=smooth(48, 40), alpha=alpha)
        write(picture, folder / f"a{suffix}", quality=90)
        files[kind] = (folder / f"a{suffix}").read_bytes()
    return files


@pytest.fixture
def quiet(capfd):
    """Fails the test when anything, C libraries included, was printed."""
    yield
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def outcome(path) -> Picture | str:
    """A picture or the error's one line; anything else is a failure of the test."""
    try:
        picture = read(path)
    except RelumeError as error:
        message = str(error)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert len(message) < len(str(path)) + 400
        return message
    assert isinstance(picture, Picture)
    assert not torch.isnan(picture.pixels).any()
    assert picture.pixels.min() >= 0
    assert picture.pixels.max() <= 1
    return picture


@every_format
def test_cut_short_at_any_length_is_refused_or_said(tmp_path, sound, kind, quiet):
    data = sound[kind]
    path = tmp_path / f"a{FORMATS[kind]}"
    lengths = {*range(0, len(data), max(1, len(data) // 120)), *range(40), *range(len(data) - 20, len(data))}
    whole = tmp_path / f"whole{FORMATS[kind]}"
    whole.write_bytes(data)
    expected = read(whole)
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        result = outcome(path)
        if isinstance(result, Picture):
            # Only what follows the pixels may be missing, and then that is said.
            assert torch.equal(result.pixels, expected.pixels), length
            assert result.notes or result.icc == expected.icc


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("progressive", [False, True])
def test_half_a_jpeg_never_gives_gray_blocks(tmp_path, quiet, bands, progressive):
    levels = np.random.default_rng(0).integers(0, 255, (64, 64, bands), dtype=np.uint8)
    data = bytes(vips(levels, "srgb" if bands == 3 else "b-w").jpegsave_buffer(interlace=progressive))
    for share in (0.3, 0.5, 0.7, 0.9, 0.99):
        half = data[: int(len(data) * share)]
        for ending in (b"", b"\xff\xd9"):  # some programs close what they cut
            (tmp_path / "a.jpg").write_bytes(half + ending)
            assert "damaged or cut short" in str(outcome(tmp_path / "a.jpg"))


@every_format
def test_changed_bytes_give_a_picture_or_one_line(tmp_path, sound, kind, quiet):
    data = sound[kind]
    path = tmp_path / f"a{FORMATS[kind]}"
    rng = random.Random(kind)
    read_count = 0
    for _ in range(MUTATIONS):
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            # Half of the changes go where the structure is densest.
            reach = len(data) if rng.random() < 0.5 else min(len(data), 400)
            changed[rng.randrange(reach)] = rng.choice([0, 1, 0x7F, 0x80, 255, rng.randrange(256)])
        path.write_bytes(changed)
        read_count += isinstance(outcome(path), Picture)
    assert 0 < read_count < MUTATIONS


@every_format
def test_pieces_swapped_or_repeated_give_a_picture_or_one_line(tmp_path, sound, kind, quiet):
    data = sound[kind]
    path = tmp_path / f"a{FORMATS[kind]}"
    rng = random.Random(kind)
    for _ in range(60):
        first, second = sorted(rng.sample(range(4, len(data)), 2))
        path.write_bytes(rng.choice([data[:first] + data[second:], data[:second] + data[first:]]))
        outcome(path)


@settings(max_examples=100, deadline=None)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_noise_behind_a_good_beginning_is_refused(tmp_path_factory, start, rest):
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(start + rest)
    outcome(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello, this is no picture\n" * 40, "text"),
        (b"1 2 3\n4 5 6\n", "text"),
        (b"2 2\n0 0\n0 0\n", "text"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"></svg>', "SVG"),
        (b'<?xml version="1.0"?><svg width="4" height="4"></svg>', "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"P5\n2 2\n255\nabcd", "text"),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"BM" + bytes(60), "BMP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (b"\x7fELF" + bytes(60), "not a picture"),
        (bytes(100), "not a picture"),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".csv", ".svg", ".mat", ".v", ""])
def test_what_is_no_picture_is_refused_by_name(tmp_path, quiet, content, said, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    message = outcome(path)
    assert isinstance(message, str)
    assert said in message
    assert "PNG, JPEG, TIFF, WebP and AVIF" in message or said == "empty"


def test_real_gif_and_bmp_are_refused_too(tmp_path, quiet):
    for kind in ("gif", "bmp", "ppm"):
        (tmp_path / "a.png").write_bytes(pillow_bytes(Image.new("RGB", (4, 4)), kind))
        assert isinstance(outcome(tmp_path / "a.png"), str)


def test_folder_missing_file_and_pipe(tmp_path, quiet):
    assert "folder" in str(outcome(tmp_path))
    assert "no such file" in str(outcome(tmp_path / "nothing.png"))
    (tmp_path / "file").write_bytes(b"x")
    assert "not a folder" in str(outcome(tmp_path / "file" / "a.png"))
    assert isinstance(outcome(tmp_path / ("n" * 300 + ".png")), str)
    with pytest.raises(PictureError):
        read("nul\0byte.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        assert "pipe" in str(outcome(tmp_path / "pipe.png"))
        (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
        assert isinstance(outcome(tmp_path / "loop.png"), str)


def _claiming(kind: str, sound: dict[str, bytes], side: int) -> bytes:
    """A file of a few bytes whose header states side×side."""
    if kind == "png":
        return png_claiming(side, side)
    data = bytearray(sound[kind])
    if kind == "jpeg":
        at = next(at for at in (data.find(bytes((0xFF, marker))) for marker in (0xC0, 0xC2)) if at >= 0)
        data[at + 5 : at + 9] = side.to_bytes(2, "big") * 2
        return bytes(data)
    if kind == "tiff":
        image = Image.new("L", (8, 8))
        plain = bytearray(pillow_bytes(image, "tiff"))
        for tag in (256, 257, 278):
            at = plain.find(tag.to_bytes(2, "little") + b"\x04\0\x01\0\0\0")
            at = at if at >= 0 else plain.find(tag.to_bytes(2, "little") + b"\x03\0\x01\0\0\0")
            plain[at + 2 : at + 4] = b"\x04\0"
            plain[at + 8 : at + 12] = side.to_bytes(4, "little")
        return bytes(plain)
    if kind == "webp":
        flat = bytearray(pillow_bytes(Image.new("RGB", (8, 8)), "webp", lossless=True))
        at = flat.index(b"VP8L") + 9
        side = min(side, 16383)  # more cannot be stated
        flat[at : at + 4] = ((side - 1) | (side - 1) << 14).to_bytes(4, "little")
        return bytes(flat)
    at = data.index(b"ispe") + 8
    data[at : at + 8] = side.to_bytes(4, "big") * 2
    return bytes(data)


@every_format
def test_a_bomb_is_refused_from_its_header(tmp_path, sound, kind, quiet):
    path = tmp_path / f"a{FORMATS[kind]}"
    path.write_bytes(_claiming(kind, sound, 60_000))
    started = time.process_time()
    with pytest.raises(PictureError) as caught:
        read(path, max_megapixels=200)
    assert time.process_time() - started < 1
    if kind != "avif":  # libheif sees first that the header and the data disagree, or its own limit
        assert "limit of 200" in str(caught.value)
        assert "max_megapixels" in str(caught.value)


def test_the_limit_can_be_raised_and_lowered(tmp_path):
    path = tmp_path / "a.png"
    write(Picture(pixels=torch.zeros(1, 1000, 1001)), path)
    assert read(path).size == "1001x1000"
    assert read(path, max_megapixels=1.001).size == "1001x1000"
    with pytest.raises(PictureError, match=r"1001x1000, 1\.0 megapixels, more than the limit of 1;"):
        read(path, max_megapixels=1)


def test_a_bomb_takes_no_memory(tmp_path):
    pytest.importorskip("resource")
    (tmp_path / "a.png").write_bytes(png_claiming(60_000, 60_000))
    code = (
        "import sys\n"
        "from relume.core.errors import PictureError\n"
        "from relume.core.machine import peak_memory\n"
        "from relume.core.pictures import read\n"
        "before = peak_memory()\n"
        "try:\n    read(sys.argv[1])\n"
        "except PictureError as error:\n    print(error)\n"
        "print(peak_memory() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    message, grown = done.stdout.strip().splitlines()
    assert "60000x60000, 3600.0 megapixels, more than the limit of 500" in message
    assert int(grown) < 50_000_000  # the pixels would be ten thousand million
    assert done.stderr == ""


def test_exif_that_libvips_finds_too_small_hinders_no_decoding(tmp_path):
    image = pyvips.Image.black(7, 5, bands=3).copy()
    image.set_type(pyvips.GValue.blob_type, "exif-data", b"Ex")
    with StoredPicture(canvas=Canvas.decoded(image, 8, folder=tmp_path), bits=8, format="avif") as stored:
        assert stored.picture().pixels.shape == (3, 5, 7)


def test_an_avif_side_that_cannot_be_is_refused_silently(tmp_path, capfd):
    path = tmp_path / "a.avif"
    write(Picture(pixels=torch.rand(3, 20, 30)), path)
    data = bytearray(path.read_bytes())
    at = data.index(b"ispe") + 8
    data[at : at + 4] = (0x6000016).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(PictureError, match="a side of 100663318 pixels"):
        read(path)
    assert capfd.readouterr().err == ""


def test_a_size_of_zero_is_refused(tmp_path, quiet):
    (tmp_path / "a.png").write_bytes(png_claiming(0, 7))
    assert isinstance(outcome(tmp_path / "a.png"), str)


def test_warnings_of_libraries_stay_silent_in_a_fresh_process(tmp_path, sound):
    """In pytest, logging is captured; a user's process has no handler at all."""
    rng = random.Random(0)
    for number in range(40):
        kind = list(FORMATS)[number % len(FORMATS)]
        changed = bytearray(sound[kind])
        for _ in range(4):
            changed[rng.randrange(12, min(len(changed), 600))] = rng.choice([255, rng.randrange(256)])
        (tmp_path / f"{number}{FORMATS[kind]}").write_bytes(changed)
    code = (
        "import pathlib, sys\n"
        "from relume.core.errors import RelumeError\n"
        "from relume.core.pictures import read\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        read(path)\n"
        "    except RelumeError:\n        pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_warning_that_is_no_utf8_stays_silent(tmp_path, quiet):
    """Names in PNG are Latin-1; libpng quotes them when it drops a bad profile."""
    data = pillow_bytes(Image.new("RGB", (4, 4)), "png", icc_profile=SRGB)
    end = data.index(b"iCCP") + 4 + int.from_bytes(data[data.index(b"iCCP") - 4 : data.index(b"iCCP")], "big")
    content = b"iCCPf\xfcr Fotos\0\0" + zlib.compress(SRGB[:16] + b"GRAY" + SRGB[20:])
    chunk = (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data[: data.index(b"iCCP") - 4] + chunk + data[end + 4 :])
    picture = outcome(tmp_path / "a.png")
    assert isinstance(picture, Picture)
    assert picture.notes == ("The colour profile was left out: it is damaged or does not fit.",)


def test_sniffing_knows_every_format_and_nothing_else(sound):
    for kind, data in sound.items():
        assert sniff(data[:512]) == kind
        assert sniff(data[:3]) is None or kind == "jpeg"
    assert sniff(b"") is None
    assert describe_stranger(b"\xff\xff") == "not a picture that is known here"
