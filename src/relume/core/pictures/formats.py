"""Which formats there are, how each is told apart, and what each can hold."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relume.core.errors import PictureError

SUFFIXES: Final[dict[str, str]] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".avif": "avif",
}
"""Endings of pictures' file names, in lower case, and the format each stands for."""

CUBES: Final[dict[str, str]] = {".mat": "mat", ".npy": "npy"}
"""The same of hyperspectral cubes. Files of many kinds end so, hence folders are searched for them only where
cubes are wanted."""

SNIFF_BYTES: Final = 512
"""How much of a file's beginning `sniff` wants to see."""


@dataclass(frozen=True, kw_only=True)
class Ability:
    """What a format can hold.

    Attributes:
        title: The format's name as people write it.
        bits: The largest number of bits per sample; 32 for the floats of cubes, and nothing else.
        alpha: Whether it holds transparency.
        gray: Whether it holds one-channel pictures.
        side: The longest side in pixels that its writer takes.
    """

    title: str
    bits: int
    alpha: bool
    gray: bool
    side: int


ABILITIES: Final[dict[str, Ability]] = {
    # PNG allows 2^31 - 1, but libpng as everybody ships it stops at a million.
    "png": Ability(title="PNG", bits=16, alpha=True, gray=True, side=1_000_000),
    # JPEG allows 65535, libjpeg stops at 65500.
    "jpeg": Ability(title="JPEG", bits=8, alpha=False, gray=True, side=65_500),
    "tiff": Ability(title="TIFF", bits=16, alpha=True, gray=True, side=10_000_000),
    "webp": Ability(title="WebP", bits=8, alpha=True, gray=False, side=16_383),
    "avif": Ability(title="AVIF", bits=12, alpha=True, gray=False, side=16_384),
    "mat": Ability(title="MATLAB", bits=32, alpha=False, gray=True, side=2**31 - 1),
    "npy": Ability(title="NumPy", bits=32, alpha=False, gray=True, side=2**31 - 1),
}

SUPPORTED: Final = "PNG, JPEG, TIFF, WebP and AVIF"

# Only to tell the user what the file is instead; none of these is opened.
_STRANGERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG document"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (b"v/1\x01", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
)


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format that a file name's ending stands for.

    Raises:
        PictureError: When the ending is unknown; the message lists the known ones.
    """
    suffix = Path(path).suffix
    try:
        return {**SUFFIXES, **CUBES}[suffix.lower()]
    except KeyError:
        what = f"the ending {suffix!r} is no picture format" if suffix else "the name has no ending"
        raise PictureError(
            f"{os.fspath(path)}: {what} that can be written; use one of {', '.join(SUFFIXES)}"
        ) from None


def sniff(head: bytes) -> str | None:
    """Return the format that a file's first bytes show, None where it is none of ours."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp" and {b"avif", b"avis"} & set(_brands(head)):
        return "avif"
    # Without its mark at byte 126, which tells the order of bytes, the former is an older or a newer file.
    if head.startswith((b"MATLAB", b"\x89HDF")) or head[126:128] in (b"IM", b"MI"):
        return "mat"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    return None


def describe_stranger(head: bytes) -> str:
    """Say, for an error message, what a file that is none of ours seems to be."""
    for start, name in _STRANGERS:
        if head.lstrip().startswith(start):
            return name
    if head[4:8] == b"ftyp":
        heic = {b"heic", b"heix", b"hevc", b"mif1", b"msf1"} & set(_brands(head))
        return "a HEIC picture" if heic else "a video or another ISO media file"
    if not head.translate(None, bytes(range(32, 127)) + b"\t\r\n"):
        return "text"
    return "not a picture that is known here"


def _brands(head: bytes) -> list[bytes]:
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
