"""Profile, EXIF, XMP and resolution survive, per format; Pillow or libvips confirms it."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import pyvips
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures_making import (
    FORMATS,
    MAKER_NOTE,
    SRGB,
    XMP,
    exif_block,
    exif_with_thumbnail,
    full_picture,
    noise,
    pillow,
    pillow_bytes,
    vips,
)
from PIL import Image, ImageOps

from relume.core.pictures import Picture, read, read_size, write
from relume.core.pictures import exif as exif_module
from relume.core.pictures import xmp as xmp_module
from relume.core.pictures.ifd import BrokenStructureError

every_format = pytest.mark.parametrize("kind", FORMATS)


@every_format
def test_the_profile_is_kept_to_the_byte(tmp_path, kind):
    path = tmp_path / f"a{FORMATS[kind]}"
    write(full_picture(), path)
    assert read(path).icc == SRGB
    assert pillow(path).info["icc_profile"] == SRGB


@every_format
def test_exif_is_kept_and_gets_the_written_size(tmp_path, kind):
    path = tmp_path / f"a{FORMATS[kind]}"
    write(full_picture(), path)
    for exif in (pillow(path).getexif(), _parsed(read(path).exif)):
        assert exif[0x010F] == "Maker"
        assert exif[0x8298] == "somebody"
        assert exif.get(0x0112, 1) == 1
        detail, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        assert (detail[0xA002], detail[0xA003]) == (33, 21)
        assert bytes(detail[0x927C]) == MAKER_NOTE
        assert float(detail[0x829A]) == pytest.approx(1 / 125)
        assert (place[1], tuple(map(float, place[2]))) == ("N", (52.0, 31.0, 12.5))
        invented = set(exif) - {0x010F, 0x0112, 0x8298, 0x8769, 0x8825, 0x011A, 0x011B, 0x0128}
        assert not invented or kind == "tiff"


@every_format
def test_xmp_is_kept_and_gets_the_written_size(tmp_path, kind):
    path = tmp_path / f"a{FORMATS[kind]}"
    write(full_picture(), path)
    expected = XMP.replace(b'Orientation="6"', b'Orientation="1"').replace(b'Width="5"', b'Width="33"')
    assert read(path).xmp == expected
    assert pyvips.Image.new_from_buffer(path.read_bytes(), "").get("xmp-data") == expected


@every_format
def test_the_resolution_is_kept(tmp_path, kind):
    path = tmp_path / f"a{FORMATS[kind]}"
    write(full_picture(), path)
    assert read(path).dpi == (300.0, 150.0)
    if kind in ("png", "jpeg", "tiff"):
        assert [float(value) for value in pillow(path).info["dpi"]] == pytest.approx([300, 150], abs=0.02)


@every_format
def test_nothing_is_invented(tmp_path, kind):
    path = tmp_path / f"a{FORMATS[kind]}"
    write(Picture(pixels=noise(3, 9, 9)), path)
    back = read(path)
    assert (back.icc, back.exif, back.xmp, back.dpi) == (None, None, None, None)
    info = pillow(path).info
    assert not {"exif", "icc_profile", "xmp"} & set(info)
    if kind == "png":
        assert "dpi" not in info


@every_format
@pytest.mark.parametrize("only", ["icc", "exif", "xmp", "dpi"])
def test_each_kind_of_metadata_goes_alone(tmp_path, kind, only):
    path = tmp_path / f"a{FORMATS[kind]}"
    full = full_picture(alpha=kind != "jpeg")
    write(Picture(pixels=full.pixels, alpha=full.alpha, **{only: getattr(full, only)}), path)
    back = read(path)
    for name in ("icc", "xmp", "dpi"):
        assert (getattr(back, name) is not None) == (name == only)
    assert (back.exif is not None) == (only == "exif" or (only == "dpi" and kind in ("webp", "avif")))
    assert torch.equal(back.pixels, full.pixels) or kind in ("jpeg", "avif")


@every_format
def test_what_pillow_writes_is_read(tmp_path, kind):
    image = Image.fromarray((noise(3, 6, 8).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    options = {"exif": exif_block(8, 6), "icc_profile": SRGB, "dpi": (240, 120)}
    if kind in ("jpeg", "webp", "avif"):
        options["xmp"] = XMP
    if kind in ("webp", "avif"):
        del options["dpi"]
    path = tmp_path / f"a{FORMATS[kind]}"
    path.write_bytes(pillow_bytes(image, kind, **options))
    picture = read(path)
    assert picture.icc == SRGB
    assert _parsed(picture.exif)[0x010F] == "Maker"
    assert _parsed(picture.exif).get_ifd(0x8769)[0xA002] == 8
    assert picture.dpi == ((240.0, 120.0) if "dpi" in options else None)
    assert (picture.xmp is not None) == ("xmp" in options)
    assert picture.notes == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "webp"])
def test_every_orientation_is_applied_once(tmp_path, kind, orientation):
    # Blocks of one colour survive JPEG, so that each corner can be told.
    corners = np.kron(np.arange(6).reshape(2, 3), np.ones((16, 16))).astype(np.uint8) * 40
    image = Image.fromarray(np.stack([corners] * 3, -1))
    block = exif_block(48, 32, orientation)
    path = tmp_path / f"a{FORMATS[kind]}"
    options = {"lossless": True} if kind == "webp" else {}
    path.write_bytes(pillow_bytes(image, kind, exif=block, **options))
    expected = np.asarray(ImageOps.exif_transpose(pillow(path)).convert("L"), dtype=np.float32)
    picture = read(path)
    assert tuple(picture.pixels.shape[1:]) == read_size(path) == expected.shape
    assert np.abs(picture.pixels[0].numpy() * 255 - expected).max() < 4
    assert _parsed(picture.exif).get(0x0112, 1) == 1
    write(picture, tmp_path / "b.png")
    assert np.array_equal(read(tmp_path / "b.png").pixels, picture.pixels)


def test_resolution_turns_with_the_picture(tmp_path):
    image = Image.new("RGB", (8, 4))
    (tmp_path / "a.jpg").write_bytes(pillow_bytes(image, "jpeg", exif=exif_block(8, 4, 6), dpi=(300, 100)))
    picture = read(tmp_path / "a.jpg")
    assert (picture.size, picture.dpi) == ("4x8", (100.0, 300.0))


def test_avif_is_turned_by_its_own_property_only(tmp_path):
    image = Image.new("RGB", (32, 16))
    (tmp_path / "a.avif").write_bytes(pillow_bytes(image, "avif", exif=exif_block(32, 16, 6)))
    assert read(tmp_path / "a.avif").size == "16x32"
    assert read_size(tmp_path / "a.avif") == (32, 16)


@every_format
def test_a_stale_thumbnail_goes_and_a_true_one_stays(tmp_path, kind):
    if kind == "tiff":
        pytest.skip("a TIFF file keeps EXIF in its own directories, never with a thumbnail")
    path = tmp_path / f"a{FORMATS[kind]}"
    block = exif_with_thumbnail(33, 21)
    write(full_picture().replace(exif=block, dpi=None), path)
    assert read(path).exif == block
    write(full_picture(height=42, width=66).replace(exif=block, dpi=None), path, overwrite=True)
    back = read(path).exif
    assert b"\xff\xd8" not in back
    assert (_parsed(back)[0x100], _parsed(back)[0x101]) == (66, 42)
    assert _parsed(back)._info is None or _parsed(back).get_ifd(1) == {}


def test_a_thumbnail_of_the_unturned_picture_goes(tmp_path):
    image = Image.new("RGB", (33, 21))
    (tmp_path / "a.jpg").write_bytes(
        pillow_bytes(image, "jpeg", exif=b"Exif\0\0" + exif_with_thumbnail(33, 21, 6))
    )
    assert b"\xff\xd8" not in read(tmp_path / "a.jpg").exif


def test_a_prefix_on_exif_is_taken_off(tmp_path):
    write(full_picture().replace(exif=b"Exif\0\0" + exif_block()), tmp_path / "a.png")
    assert read(tmp_path / "a.png").exif.startswith(b"MM\0*")


@every_format
def test_exif_that_cannot_be_read_is_left_out_and_said(tmp_path, kind):
    path = tmp_path / f"a{FORMATS[kind]}"
    notes = write(full_picture().replace(exif=b"II*\0garbage", dpi=None), path)
    assert [note for note in notes if "EXIF was left out" in note]
    assert read(path).exif is None


def test_broken_exif_in_a_file_costs_only_the_exif(tmp_path):
    image = Image.new("RGB", (8, 8), "red")
    for kind in ("jpeg", "webp"):
        (tmp_path / "a").write_bytes(pillow_bytes(image, kind, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
        picture = read(tmp_path / "a")
        assert picture.exif is None
        assert any("EXIF was left out" in note for note in picture.notes)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_mutated_exif_raises_one_kind_of_error(data):
    block = bytearray(data.draw(st.sampled_from([exif_block(), exif_with_thumbnail(5, 7, 6)])))
    for _ in range(data.draw(st.integers(1, 6))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    block = bytes(block[: data.draw(st.integers(1, len(block)))])
    try:
        block = exif_module.clean(block)
        block = exif_module.fitted(exif_module.upright(block), 100_000, 3)
        block = exif_module.with_resolution(block, (300.0, 72.5), add=True)
        exif_module.resolution(block)
    except BrokenStructureError:
        pass


def test_adding_a_resolution_moves_no_other_tag():
    block = exif_block()
    assert exif_module.with_resolution(block, (72.0, 72.0), add=False) == block
    longer = exif_module.with_resolution(block, (72.5, 300.0), add=True)
    assert longer[8 : len(block)] == block[8:]
    assert exif_module.resolution(longer) == (72.5, 300.0)
    assert _parsed(longer).get_ifd(0x8769) == _parsed(block).get_ifd(0x8769)


def test_xmp_elements_are_restated_too():
    packet = b"<tiff:Orientation>8</tiff:Orientation><exif:PixelXDimension> 12 </exif:PixelXDimension>"
    packet = xmp_module.fitted(xmp_module.upright(packet), 640, 480)
    assert (
        packet == b"<tiff:Orientation>1</tiff:Orientation><exif:PixelXDimension> 640 </exif:PixelXDimension>"
    )


def test_jpeg_says_what_its_segments_cannot_hold(tmp_path):
    picture = full_picture().replace(xmp=b"<x>" + b" " * 70_000 + b"</x>", dpi=(300.4, 300.0))
    notes = write(picture, tmp_path / "a.jpg")
    assert len(notes) == 2
    assert re.search("XMP of 7.* left out", " ".join(notes))
    assert "rounded to 300x300" in " ".join(notes)
    assert read(tmp_path / "a.jpg").xmp is None


def test_a_long_profile_is_split_over_jpeg_segments(tmp_path):
    # Bytes after the profile's last tag are of no meaning, but must come back.
    long = SRGB + bytes(200_000)
    long = len(long).to_bytes(4, "big") + long[4:]
    write(full_picture().replace(icc=long), tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg").icc == long


def test_what_cannot_be_kept_is_said(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Title", "a title")
    Image.new("L", (4, 4)).save(tmp_path / "a.png", pnginfo=text)
    assert read(tmp_path / "a.png").notes == ("Not kept from the file: text comments.",)
    (tmp_path / "a.jpg").write_bytes(pillow_bytes(Image.new("L", (4, 4)), "jpeg", comment=b"hello"))
    assert read(tmp_path / "a.jpg").notes == ("Not kept from the file: a text comment.",)


def test_a_profile_for_other_channels_is_left_out_and_said(tmp_path):
    (tmp_path / "a.jpg").write_bytes(pillow_bytes(Image.new("L", (8, 8)), "jpeg", icc_profile=SRGB))
    picture = read(tmp_path / "a.jpg")
    assert picture.icc is None
    assert any("does not fit" in note for note in picture.notes)
    notes = write(Picture(pixels=torch.zeros(1, 4, 4), icc=SRGB), tmp_path / "b.png")
    assert any("does not fit" in note for note in notes)
    assert "icc_profile" not in pillow(tmp_path / "b.png").info


def test_an_unstated_resolution_stays_unstated(tmp_path):
    # libvips reports 72 dpi for such files; nobody stated that.
    (tmp_path / "a.jpg").write_bytes(pillow_bytes(Image.new("L", (4, 4)), "jpeg"))
    vips(np.zeros((4, 4), np.uint8), "b-w").pngsave(str(tmp_path / "b.png"))
    assert read(tmp_path / "a.jpg").dpi is None
    assert read(tmp_path / "b.png").dpi == (25.4, 25.4)


def test_a_tiff_directory_moves_to_jpeg_and_back(tmp_path):
    write(full_picture(), tmp_path / "a.tif")
    write(read(tmp_path / "a.tif"), tmp_path / "b.jpg")
    write(read(tmp_path / "b.jpg"), tmp_path / "c.tif")
    first, last = (pillow(tmp_path / name).getexif() for name in ("a.tif", "c.tif"))
    for tag in (0x8769, 0x8825):
        assert first.get_ifd(tag) == last.get_ifd(tag)
    assert read(tmp_path / "c.tif").exif == read(tmp_path / "a.tif").exif


def _parsed(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    exif.endian = "<" if block[:2] == b"II" else ">"
    assert io.BytesIO(block).read(2) in (b"II", b"MM")
    return exif
