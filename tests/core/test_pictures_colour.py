"""CMYK, Lab and gray profiles; colour under transparent pixels."""

from __future__ import annotations

import numpy as np
import pytest
import pyvips
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures_making import SRGB, noise, pillow, pillow_bytes, vips
from PIL import Image, ImageCms

from relume.core.pictures import Picture, bleed_colour, read, write
from relume.core.pictures.colour import profile_channels


@pytest.fixture(scope="module")
def cmyk_profile():
    # libvips' own CMYK profile, as any file converted to CMYK carries it.
    image = vips(np.zeros((1, 1, 3), np.uint8), "srgb").icc_transform("cmyk", input_profile="srgb")
    return bytes(image.get("icc-profile-data"))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", ["jpeg", "tiff"])
def test_cmyk_goes_through_a_profile_and_says_which(tmp_path, cmyk_profile, kind, own):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    options = {"icc_profile": cmyk_profile} if own else {}
    path = tmp_path / "a"
    path.write_bytes(pillow_bytes(image, kind, **options))
    picture = read(path)
    red, green, blue = picture.pixels[:, 8, 8].tolist()
    assert red > 0.8
    assert green < 0.25
    assert blue < 0.25
    assert picture.channels == 3
    assert profile_channels(picture.icc) in (None, 3) if picture.icc else True
    (note,) = [note for note in picture.notes if "CMYK" in note]
    assert ("the file's own profile" in note) == own


def test_cmyk_agrees_with_littlecms(tmp_path, cmyk_profile):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (8, 8, 4), dtype=np.uint8), "CMYK")
    (tmp_path / "a.tif").write_bytes(pillow_bytes(image, "tiff", icc_profile=cmyk_profile))
    (tmp_path / "cmyk.icc").write_bytes(cmyk_profile)
    theirs = ImageCms.profileToProfile(
        image,
        str(tmp_path / "cmyk.icc"),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    ours = read(tmp_path / "a.tif").pixels.permute(1, 2, 0).numpy() * 255
    assert np.abs(ours - np.asarray(theirs)).max() <= 6


def test_deep_cmyk_stays_deep(tmp_path):
    image = vips(np.full((8, 8, 4), 20_000, np.uint16), "cmyk")
    image.tiffsave(str(tmp_path / "a.tif"))
    picture = read(tmp_path / "a.tif")
    assert (picture.bits, picture.channels) == (16, 3)


@pytest.mark.parametrize("space", ["labq", "labs"])
def test_lab_becomes_srgb_and_says_so(tmp_path, space):
    colour = torch.tensor([200.0, 30.0, 120.0])
    image = vips(np.full((8, 8, 3), colour.numpy(), np.uint8), "srgb")
    image.colourspace(space).tiffsave(str(tmp_path / "a.tif"), compression="deflate", predictor="horizontal")
    picture = read(tmp_path / "a.tif")
    assert (picture.pixels[:, 4, 4] - colour / 255).abs().max() < 0.02
    assert picture.bits == (8 if space == "labq" else 16)
    assert any("Lab" in note for note in picture.notes)


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_a_gray_profile_is_applied_where_there_is_no_gray(tmp_path, suffix):
    image = vips(np.full((8, 8), 100, np.uint8), "b-w")
    gray = _gray_profile()
    notes = write(
        Picture(pixels=torch.full((1, 8, 8), 100 / 255), icc=gray), tmp_path / f"a{suffix}", quality=100
    )
    assert any("gray profile was applied" in note for note in notes)
    back = read(tmp_path / f"a{suffix}")
    assert profile_channels(back.icc) == 3
    expected = image.copy()
    expected.set_type(pyvips.GValue.blob_type, "icc-profile-data", gray)
    theirs = expected.icc_transform("srgb", embedded=True, intent="relative").numpy()[4, 4, 0]
    assert abs(back.pixels[0, 4, 4].item() * 255 - theirs) <= 2
    assert abs(theirs - 100) > 5  # or this would test nothing


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_gray_profile_stays_with_gray(tmp_path, suffix):
    gray = _gray_profile()
    assert write(Picture(pixels=noise(1, 8, 8), icc=gray), tmp_path / f"a{suffix}") == ()
    assert read(tmp_path / f"a{suffix}").icc == gray
    assert pillow(tmp_path / f"a{suffix}").info["icc_profile"] == gray


def test_profiles_tell_their_channels():
    assert profile_channels(SRGB) == 3
    assert profile_channels(b"no profile") is None
    assert profile_channels(bytes(200)) is None


def test_bleeding_fills_hidden_pixels_from_the_nearest_visible():
    pixels = torch.zeros(3, 5, 9)
    alpha = torch.zeros(1, 5, 9)
    pixels[0, 2, 1], pixels[1, 2, 7] = 1.0, 1.0
    alpha[0, 2, 1], alpha[0, 2, 7] = 0.25, 1.0
    filled = bleed_colour(pixels, alpha)
    assert filled[0, :, :4].min() == 1
    assert filled[1, :, 5:].min() == 1
    assert filled[2].max() == 0
    assert pixels[0].sum() == 1  # the argument is left alone


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 99), share=st.floats(0.02, 0.98)
)
def test_bleeding_takes_the_nearest_by_chamfer_distance(height, width, seed, share):
    generator = torch.Generator().manual_seed(seed)
    visible = torch.rand(height, width, generator=generator) < share
    visible[seed % height, seed % width] = True
    # Each pixel's colour is its own number, so that the source can be told.
    pixels = torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)
    filled = bleed_colour(pixels, visible[None].float())[0].long()
    assert torch.equal(filled[visible], pixels[0].long()[visible])
    rows, columns = torch.nonzero(visible, as_tuple=True)
    for row in range(height):
        for column in range(width):
            down, across = (rows - row).abs(), (columns - column).abs()
            distances = 3 * torch.maximum(down, across) + torch.minimum(down, across)
            chosen = int(filled[row, column])
            assert visible[chosen // width, chosen % width]
            taken = (abs(chosen // width - row), abs(chosen % width - column))
            assert 3 * max(taken) + min(taken) == int(distances.min())


def test_bleeding_has_nothing_to_do_without_hidden_or_visible_pixels():
    pixels = noise(3, 4, 4)
    assert bleed_colour(pixels, torch.ones(1, 4, 4)) is pixels
    assert bleed_colour(pixels, torch.zeros(1, 4, 4)) is pixels


def test_bleeding_keeps_hidden_colour_out_of_enlarged_edges():
    pixels = torch.zeros(3, 8, 8)
    pixels[0], pixels[1, :, 4:] = 1.0, 1.0  # red, and yellow where it is hidden
    alpha = torch.zeros(1, 8, 8)
    alpha[:, :, :4] = 1

    def enlarge(tensor):
        return torch.nn.functional.interpolate(tensor[None], scale_factor=4, mode="bicubic")[0]

    seen = enlarge(alpha)[0] > 0.01
    assert enlarge(pixels)[1][seen].max() > 0.3
    assert enlarge(bleed_colour(pixels, alpha))[1][seen].abs().max() == 0


def _gray_profile() -> bytes:
    """A gray profile with gamma 1.8, put together by hand: littleCMS makes none through Pillow."""

    def tag(content: bytes) -> bytes:
        return content + bytes(-len(content) % 4)

    text = "gray"
    description = (
        b"mluc\0\0\0\0" + (1).to_bytes(4, "big") + (12).to_bytes(4, "big") + b"enUS"
        + (8).to_bytes(4, "big") + (28).to_bytes(4, "big") + text.encode("utf-16-be")
    )  # fmt: skip
    white = b"XYZ \0\0\0\0" + b"".join(
        round(value * 65536).to_bytes(4, "big") for value in (0.9642, 1.0, 0.8249)
    )
    curve = b"curv\0\0\0\0" + (1).to_bytes(4, "big") + round(1.8 * 256).to_bytes(2, "big")
    contents = {
        b"desc": tag(description),
        b"cprt": tag(description),
        b"wtpt": tag(white),
        b"kTRC": tag(curve),
    }
    table, data, at = b"", b"", 128 + 4 + 12 * len(contents)
    for name, content in contents.items():
        table += name + at.to_bytes(4, "big") + len(content).to_bytes(4, "big")
        data += content
        at += len(content)
    header = bytearray(128)
    header[0:4] = at.to_bytes(4, "big")
    header[8:12] = b"\x04\x20\0\0"
    header[12:24] = b"mntrGRAYXYZ "
    header[24:36] = b"".join(value.to_bytes(2, "big") for value in (2020, 1, 1, 0, 0, 0))
    header[36:40] = b"acsp"
    header[68:80] = white[8:]
    return bytes(header) + len(contents).to_bytes(4, "big") + table + data
