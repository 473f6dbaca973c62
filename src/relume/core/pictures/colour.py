"""Colour that is neither gray nor RGB is turned into sRGB; profiles that do not fit are found out.

A restorer works on gray or RGB. CMYK goes through the profile that the file holds,
else through libvips' built-in one; what was done is said in a note.
"""

from __future__ import annotations

import pyvips

LAB_NOTE = "Lab colours were converted to sRGB."
_SPACES = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}


def profile_channels(icc: bytes) -> int | None:
    """Return how many channels a profile describes: 1, 3 or 4; None for any other space, or no profile."""
    return _SPACES.get(icc[16:20]) if len(icc) >= 128 and icc[36:40] == b"acsp" else None


def blob(image: pyvips.Image, name: str) -> bytes | None:
    """Return one of an image's binary fields, None where it is missing."""
    return bytes(image.get(name)) if image.get_typeof(name) else None


def reason(error: Exception) -> str:
    """Return what libvips, or who else failed, says, cut to a length that a line can hold."""
    said = " ".join(str(getattr(error, "detail", "") or error).split())
    return said if len(said) <= 120 else said[:119] + "…"


def attach(image: pyvips.Image, icc: bytes | None) -> pyvips.Image:
    """Return the image with this profile as its own, or with none."""
    image = image.copy()
    if image.get_typeof("icc-profile-data"):
        image.remove("icc-profile-data")
    if icc is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return image


def to_gray_or_rgb(image: pyvips.Image) -> tuple[pyvips.Image, list[str]]:
    """Turn CMYK and Lab into sRGB; leave gray and RGB alone.

    Returns:
        The image, its profile replaced where its colours were, and notes.

    Raises:
        pyvips.Error: When libvips cannot convert.
    """
    space = str(image.interpretation)
    if space == "cmyk":
        icc = blob(image, "icc-profile-data")
        own = icc is not None and profile_channels(icc) == 4
        if own:
            note = "CMYK was converted to sRGB through the file's own profile."
        else:
            note = "CMYK was converted to sRGB through a general CMYK profile, as the file holds none."
            image = attach(image, None)
        return through_profile(image, source="cmyk"), [note]
    if space in ("lab", "labq", "labs"):
        deep = str(image.format) not in ("uchar",) and space != "labq"
        turned = attach(image, None).colourspace("rgb16" if deep else "srgb")
        return turned, [LAB_NOTE]
    return image, []


def from_lab_bytes(image: pyvips.Image) -> pyvips.Image:
    """Turn bytes that mean Lab (L 0..255 for 0..100, a and b signed) into sRGB; further bands pass through.

    Raises:
        pyvips.Error: When libvips cannot convert.
    """
    light = image.extract_band(0) * (100 / 255)
    colours = image.extract_band(1, n=2).copy(format="char")
    turned = light.bandjoin(colours).copy(interpretation="lab").colourspace("srgb")
    rest = image.bands - 3
    return turned.bandjoin(image.extract_band(3, n=rest)) if rest else turned


def through_profile(image: pyvips.Image, *, source: str) -> pyvips.Image:
    """Convert to sRGB at the same depth; alpha passes through.

    Args:
        image: Carries its profile, else `source` is used.
        source: Name of a profile built into libvips.

    Raises:
        pyvips.Error: When libvips cannot convert.
    """
    return image.icc_transform(
        "srgb",
        embedded=image.get_typeof("icc-profile-data") != 0,
        input_profile=source,
        intent="relative",
        black_point_compensation=True,
        depth=16 if str(image.format) == "ushort" else 8,
    )
