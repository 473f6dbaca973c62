"""Pixels survive writing and reading, per format, depth and kind; an independent reader agrees."""

from __future__ import annotations

import numpy as np
import pytest
import pyvips
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures_making import FORMATS, SRGB, full_picture, noise, pillow, pillow_bytes, smooth, vips
from PIL import Image

from relume.core.errors import PictureError
from relume.core.pictures import SUFFIXES, Picture, format_of, read, write

LOSSLESS_16 = ("png", "tiff")


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", LOSSLESS_16)
def test_png_and_tiff_keep_every_bit(tmp_path, kind, bits, channels, alpha):
    picture = full_picture(bits, channels, alpha=alpha)
    path = tmp_path / f"a{FORMATS[kind]}"
    assert write(picture, path) == ()
    back = read(path)
    assert torch.equal(back.pixels, picture.pixels)
    assert (back.alpha is None) == (not alpha)
    if alpha:
        assert torch.equal(back.alpha, picture.alpha)
    assert (back.bits, back.format, back.channels) == (bits, kind, channels)
    assert back.notes == ()


@pytest.mark.parametrize("kind", LOSSLESS_16)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_levels_come_back(tmp_path, kind, data):
    bits = data.draw(st.sampled_from([8, 16]))
    height, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    largest = (1 << bits) - 1
    levels = data.draw(
        st.lists(st.integers(0, largest), min_size=4 * height * width, max_size=4 * height * width)
    )
    whole = torch.tensor(levels, dtype=torch.float32).reshape(4, height, width) / largest
    picture = Picture(pixels=whole[:3].contiguous(), alpha=whole[3:].contiguous(), bits=bits)
    path = tmp_path / f"a{FORMATS[kind]}"
    write(picture, path, overwrite=True)
    back = read(path)
    assert torch.equal(back.pixels, picture.pixels)
    assert torch.equal(back.alpha, picture.alpha)
    assert back.bits == bits


def test_webp_and_avif_lose_nothing_at_quality_100(tmp_path):
    picture = full_picture(8, 3, alpha=True)
    for suffix in (".webp", ".avif"):
        assert write(picture, tmp_path / f"a{suffix}", quality=100) == ()
        back = read(tmp_path / f"a{suffix}")
        assert torch.equal(back.pixels, picture.pixels)
        assert torch.equal(back.alpha, picture.alpha)
        assert (back.bits, back.icc) == (8, SRGB)


def test_webp_keeps_colour_under_transparent_pixels(tmp_path):
    picture = Picture(pixels=noise(3, 9, 9), alpha=torch.zeros(1, 9, 9))
    write(picture, tmp_path / "a.webp")
    assert torch.equal(read(tmp_path / "a.webp").pixels, picture.pixels)


@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "avif"])
def test_an_opaque_alpha_stays_an_alpha(tmp_path, kind):
    picture = Picture(pixels=noise(3, 8, 8), alpha=torch.ones(1, 8, 8))
    write(picture, tmp_path / f"a{FORMATS[kind]}")
    alpha = read(tmp_path / f"a{FORMATS[kind]}").alpha
    assert alpha is not None
    assert torch.equal(alpha, picture.alpha)


def test_avif_holds_twelve_bits_of_sixteen_and_white_stays_white(tmp_path):
    levels = torch.tensor([0, 1, 2047, 2048, 4094, 4095], dtype=torch.float32) / 4095
    picture = Picture(pixels=levels.expand(3, 4, 6).contiguous(), bits=16)
    notes = write(picture, tmp_path / "a.avif", quality=100)
    assert notes == ("16 bits per sample were reduced to 12, the most that AVIF holds.",)
    back = read(tmp_path / "a.avif")
    assert back.bits == 16
    assert torch.equal(back.pixels, picture.pixels)
    assert back.notes == ("12-bit samples are treated as 16 bits.",)


def test_avif_agrees_with_pillow(tmp_path):
    picture = Picture(pixels=smooth(48, 64), format="jpeg")
    write(picture, tmp_path / "a.avif", quality=95)
    theirs = np.asarray(pillow(tmp_path / "a.avif")).astype(np.float32) / 255
    assert np.abs(theirs - picture.pixels.permute(1, 2, 0).numpy()).max() < 0.03


@pytest.mark.parametrize("kind", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("quality", [None, 80])
def test_lossy_formats_stay_close(tmp_path, kind, quality):
    picture = Picture(pixels=smooth(40, 56), alpha=None, format="jpeg")
    path = tmp_path / f"a{FORMATS[kind]}"
    assert write(picture, path, quality=quality) == ()
    assert (read(path).pixels - picture.pixels).abs().max() < 0.06


def test_quality_counts(tmp_path):
    picture = Picture(pixels=noise(3, 64, 64), format="jpeg")
    for suffix in (".jpg", ".webp", ".avif"):
        write(picture, tmp_path / f"low{suffix}", quality=20)
        write(picture, tmp_path / f"high{suffix}", quality=90)
        assert (tmp_path / f"low{suffix}").stat().st_size < (tmp_path / f"high{suffix}").stat().st_size / 1.5


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    # From quality 90 on libvips would keep it by itself.
    write(full_picture(), tmp_path / "a.jpg", quality=80)
    image = pyvips.Image.new_from_file(str(tmp_path / "a.jpg"))
    assert image.get("jpeg-chroma-subsample") == "4:4:4"


def test_gray_jpeg_stays_gray(tmp_path):
    picture = Picture(pixels=smooth(16, 16)[:1].contiguous())
    assert write(picture, tmp_path / "a.jpg") == ()
    assert read(tmp_path / "a.jpg").channels == 1
    assert pillow(tmp_path / "a.jpg").mode == "L"


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_gray_becomes_rgb_where_there_is_no_gray_and_says_so(tmp_path, suffix, alpha):
    picture = Picture(pixels=noise(1, 12, 12), alpha=noise(1, 12, 12, seed=3) if alpha else None)
    (note,) = write(picture, tmp_path / f"a{suffix}", quality=100)
    assert "Gray was written as RGB" in note
    back = read(tmp_path / f"a{suffix}")
    assert torch.equal(back.pixels, picture.pixels.expand(3, -1, -1))
    assert (back.alpha is not None) == alpha


def test_gray_avif_of_others_is_read_as_gray(tmp_path):
    # Pillow and libvips write no gray AVIF; so one is made by setting its own mark in a file.
    path = tmp_path / "a.avif"
    write(Picture(pixels=torch.full((3, 8, 8), 0.5)), path)
    data = path.read_bytes()
    at = data.index(b"av1C") + 4
    path.write_bytes(data[: at + 2] + bytes([data[at + 2] | 0x10]) + data[at + 3 :])
    assert read(path).channels == 1


def test_alpha_is_laid_onto_white_for_jpeg(tmp_path):
    pixels = torch.zeros(3, 8, 8)
    alpha = torch.zeros(1, 8, 8)
    alpha[:, :, 4:] = 1
    notes = write(Picture(pixels=pixels, alpha=alpha), tmp_path / "a.jpg", quality=100)
    assert notes == ("Transparency was laid onto white, as JPEG holds none.",)
    back = read(tmp_path / "a.jpg").pixels
    assert back[:, :, :4].min() > 0.98
    assert back[:, :, 4:].max() < 0.02


def test_bits_can_be_chosen(tmp_path):
    picture = full_picture(16)
    assert write(picture, tmp_path / "a.png", bits=8) == ()
    back = read(tmp_path / "a.png")
    assert back.bits == 8
    expected = torch.floor(picture.pixels * 255 + 0.5) / 255
    assert torch.equal(back.pixels, expected)
    write(back, tmp_path / "b.tif", bits=16)
    assert read(tmp_path / "b.tif").bits == 16
    assert torch.equal(
        (read(tmp_path / "b.tif").pixels - back.pixels).abs() < 1e-5, torch.ones(3, 21, 33) > 0
    )


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_sixteen_bits_are_reduced_and_that_is_said(tmp_path, suffix):
    notes = write(full_picture(16), tmp_path / f"a{suffix}")
    assert any("reduced to 8" in note for note in notes)
    assert read(tmp_path / f"a{suffix}").bits == 8


def test_depth_comes_from_the_file_not_from_its_values(tmp_path):
    dark = vips(np.full((6, 6, 3), 200, np.uint16), "rgb16")
    dark.pngsave(str(tmp_path / "dark.png"))
    picture = read(tmp_path / "dark.png")
    assert picture.bits == 16
    assert picture.pixels.max() == pytest.approx(200 / 65535)


def test_values_are_clamped_and_halves_rounded_up(tmp_path):
    row = torch.tensor([-0.5, 0.0, 0.5 / 255 + 1e-6, 0.5, 1.0, 7.0])
    write(Picture(pixels=row.expand(1, 2, 6).contiguous()), tmp_path / "a.png")
    assert np.asarray(pillow(tmp_path / "a.png"))[0].tolist() == [0, 0, 1, 128, 255, 255]


def test_no_number_is_refused(tmp_path):
    pixels = torch.zeros(3, 4, 4)
    pixels[1, 2, 3] = torch.nan
    with pytest.raises(PictureError, match="NaN"):
        write(Picture(pixels=pixels), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mode", "channels", "alpha"), [("1", 1, False), ("P", 3, False), ("LA", 1, True)])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_small_depths_and_palettes_are_expanded(tmp_path, kind, mode, channels, alpha):
    source = Image.fromarray((noise(3, 10, 12).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    image = source.convert(mode)
    path = tmp_path / f"a{FORMATS[kind]}"
    image.save(path)
    picture = read(path)
    expected = np.asarray(image.convert("RGB" if channels == 3 else "L"), dtype=np.float32) / 255
    assert picture.channels == channels
    assert picture.bits == 8
    assert (picture.alpha is not None) == alpha
    assert np.allclose(picture.pixels[0].numpy(), expected[..., 0] if channels == 3 else expected, atol=1e-6)
    assert bool(picture.notes) == (mode == "1" or (mode == "P" and kind == "png"))


def test_palette_transparency_becomes_alpha(tmp_path):
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=bytes([255, 77]))
    picture = read(tmp_path / "a.png")
    assert picture.alpha[0, 0, :3].mul(255).round().tolist() == [255, 77, 255]
    assert picture.pixels[:, 0, 1].tolist() == [0, 1, 0]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_becomes_alpha(tmp_path, mode):
    image = Image.new(mode, (3, 1), "white")
    image.putpixel((1, 0), 0 if mode == "L" else (0, 0, 0))
    image.save(tmp_path / "a.png", transparency=0 if mode == "L" else (0, 0, 0))
    assert read(tmp_path / "a.png").alpha[0, 0].tolist() == [1, 0, 1]


def test_a_file_rewritten_under_its_name_is_read_anew(tmp_path):
    for seed in range(3):
        picture = Picture(pixels=noise(3, 8, 8, seed=seed))
        write(picture, tmp_path / "a.png", overwrite=True)
        assert torch.equal(read(tmp_path / "a.png").pixels, picture.pixels)


@pytest.mark.parametrize("kind", ["webp", "png", "avif"])
def test_animations_give_their_first_picture_and_say_so(tmp_path, kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    data = pillow_bytes(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    (tmp_path / "a").write_bytes(data)
    picture = read(tmp_path / "a")
    assert picture.size == "32x32"
    assert (picture.pixels[:, 3, 3] - torch.tensor([1.0, 0, 0])).abs().max() < 0.05
    assert any("only" in note and "first" in note for note in picture.notes)


def test_the_first_of_several_tiff_pages_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    picture = read(tmp_path / "a.tif")
    assert picture.size == "8x6"
    assert picture.notes == ("The file holds 2 pictures; only the first was read.",)


def test_content_decides_the_format(tmp_path):
    (tmp_path / "a.png").write_bytes(pillow_bytes(Image.new("RGB", (4, 4), "red"), "jpeg"))
    picture = read(tmp_path / "a.png")
    assert picture.format == "jpeg"
    assert picture.notes == ("The file holds JPEG although its name ends in .png; it was read as JPEG.",)


def test_big_tiff_and_both_byte_orders_are_read(tmp_path):
    levels = np.arange(60, dtype=np.uint16).reshape(4, 5, 3) * 1000
    vips(levels, "rgb16").tiffsave(str(tmp_path / "big.tif"), bigtiff=True, xres=10, yres=10)
    picture = read(tmp_path / "big.tif")
    assert torch.equal(picture.pixels, torch.from_numpy(levels.astype(np.float32) / 65535).permute(2, 0, 1))
    assert picture.dpi == (254.0, 254.0)


def test_multiplied_alpha_is_divided_out_and_said(tmp_path):
    levels = np.full((4, 4, 4), (200, 100, 50, 128), np.uint8)
    vips(levels, "srgb").tiffsave(str(tmp_path / "a.tif"), premultiply=True)
    picture = read(tmp_path / "a.tif")
    assert (picture.pixels[:, 0, 0] * 255 - torch.tensor([200.0, 100.0, 50.0])).abs().max() <= 2
    assert any("alpha was divided" in note for note in picture.notes)


def test_floating_point_is_refused_in_one_line(tmp_path):
    vips(np.zeros((4, 4, 3), np.float32), "scrgb").tiffsave(str(tmp_path / "a.tif"))
    with pytest.raises(PictureError, match="float") as caught:
        read(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16384), (".jpg", 65501), (".avif", 16385)])
def test_formats_limits_are_said_before_encoding(tmp_path, suffix, side):
    picture = Picture(pixels=torch.zeros(1, 1, side))
    with pytest.raises(PictureError, match=f"limit is {side - 1}"):
        write(picture, tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".webp", ".jpg"])
def test_the_largest_side_is_written(tmp_path, suffix):
    side = {".webp": 16383, ".jpg": 65500}[suffix]
    write(Picture(pixels=torch.zeros(1, 1, side)), tmp_path / f"a{suffix}")
    assert read(tmp_path / f"a{suffix}").width == side


@pytest.mark.parametrize("kind", FORMATS)
def test_one_pixel_is_a_picture(tmp_path, kind):
    write(Picture(pixels=torch.full((3, 1, 1), 0.5)), tmp_path / f"a{FORMATS[kind]}")
    assert read(tmp_path / f"a{FORMATS[kind]}").size == "1x1"


def test_names_tell_formats():
    assert format_of("x.JPG") == "jpeg"
    assert {format_of(f"x{suffix}") for suffix in SUFFIXES} == set(FORMATS)
    for name in ("x.gif", "x", "x.txt"):
        with pytest.raises(PictureError, match=r"\.png"):
            format_of(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixels": torch.zeros(2, 4, 4)},
        {"pixels": torch.zeros(3, 0, 4)},
        {"pixels": torch.zeros(3, 4, 4, dtype=torch.float64)},
        {"alpha": torch.zeros(1, 4, 5)},
        {"bits": 12},
    ],
)
def test_a_picture_that_does_not_fit_together_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Picture(pixels=torch.zeros(3, 4, 4)).replace(**wrong)


def test_pillow_reads_what_is_written(tmp_path):
    for kind, suffix in FORMATS.items():
        write(full_picture(alpha=kind != "jpeg"), tmp_path / f"a{suffix}")
        image = pillow(tmp_path / f"a{suffix}")
        assert image.size == (33, 21)
        assert image.mode == ("RGB" if kind == "jpeg" else "RGBA")
