"""Put profile, EXIF, XMP and resolution into a freshly encoded file, to the byte.

libvips writes all of these itself, but changes them: EXIF passes through libexif,
which adds tags that nobody stated, TIFF gets none at all, and an unknown resolution
becomes a stated one. So libvips encodes bare pixels, and the rest is added here. Files
are handed on as pieces, since what was encoded may be larger than memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relume.core.pictures import boxes, exif, ifd
from relume.core.pictures.contents import Contents, Piece
from relume.core.pictures.ifd import BrokenStructureError, Entry, Layout
from relume.core.pictures.survey import DESCRIPTIVE, png_chunks, riff_chunks

_SEGMENT_ROOM: Final = 65_533
_XMP_MARK: Final = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What goes into the file beside the pixels; all of it fits the picture as written."""

    width: int
    height: int
    alpha: bool
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    dpi: tuple[float, float] | None


def embed(data: Contents, kind: str, extras: Extras) -> tuple[list[Piece], list[str]]:
    """Add the extras to an encoded file.

    Args:
        data: What libvips wrote, without metadata (AVIF: with profile and XMP).
        kind: Its format.
        extras: What to add.

    Returns:
        The new file in pieces, and notes on what did not fit.

    Raises:
        BrokenStructureError: When the encoder's file is laid out in an unknown way.
    """
    writers: dict[str, Callable[[Contents, Extras], tuple[list[Piece], list[str]]]] = {
        "png": _png,
        "jpeg": _jpeg,
        "tiff": _tiff,
        "webp": _webp,
        "avif": _avif,
    }
    return writers[kind](data, extras)


def _png(data: Contents, extras: Extras) -> tuple[list[Piece], list[str]]:
    early = []
    if extras.icc is not None:
        early.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(extras.icc)))
    if extras.dpi is not None:
        across, down = (min(round(value / 0.0254), (1 << 31) - 1) for value in extras.dpi)
        early.append(_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if extras.exif is not None:
        early.append(_chunk(b"eXIf", extras.exif))
    if extras.xmp is not None:
        early.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + extras.xmp))
    pieces: list[Piece] = [data.span(0, 8)]
    for kind, start, end in png_chunks(data):
        if kind == b"IDAT":  # nothing but pixels from here on
            return [*pieces, data.span(start - 8)], []
        if kind != b"pHYs":  # libvips always states one
            pieces.append(data.span(start - 8, end + 4))
        if kind == b"IHDR":
            pieces += early
    raise BrokenStructureError("no pixels")


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def _jpeg(data: Contents, extras: Extras) -> tuple[list[Piece], list[str]]:
    notes = []
    unit, across, down = 0, 1, 1
    if extras.dpi is not None:
        unit, (across, down) = 1, (max(1, min(round(value), 65_535)) for value in extras.dpi)
        if any(abs(whole - exact) > 0.01 for whole, exact in zip((across, down), extras.dpi, strict=True)):
            notes.append(f"The resolution was rounded to {across}x{down} dpi, as JPEG holds whole numbers.")
    head = [_segment(0xE0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0102, unit, across, down, 0, 0))]
    if extras.exif is not None:
        notes += _add_segment(head, 0xE1, b"Exif\0\0" + extras.exif, "EXIF")
    if extras.xmp is not None:
        notes += _add_segment(head, 0xE1, _XMP_MARK + extras.xmp, "XMP")
    if extras.icc is not None:
        step = _SEGMENT_ROOM - 14
        parts = [extras.icc[at : at + step] for at in range(0, len(extras.icc), step)]
        if len(parts) > 255:
            notes.append("The colour profile was left out: it is too large for JPEG.")
            parts = []
        for number, part in enumerate(parts, 1):
            head.append(_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, len(parts))) + part))
    return [data.span(0, 2), *head, data.span(2)], notes


def _add_segment(head: list[bytes], marker: int, content: bytes, what: str) -> list[str]:
    if len(content) > _SEGMENT_ROOM:
        return [f"{what} of {len(content)} bytes was left out: JPEG holds {_SEGMENT_ROOM}."]
    head.append(_segment(marker, content))
    return []


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def _webp(data: Contents, extras: Extras) -> tuple[list[Piece], list[str]]:
    if not (extras.icc or extras.exif or extras.xmp or extras.alpha):
        return [data.span(0)], []
    flags = 0x20 * bool(extras.icc) | 0x10 * extras.alpha | 0x08 * bool(extras.exif) | 0x04 * bool(extras.xmp)
    size = (extras.width - 1).to_bytes(3, "little") + (extras.height - 1).to_bytes(3, "little")
    pieces: list[Piece] = [_riff(b"VP8X", bytes((flags, 0, 0, 0)) + size)]
    if extras.icc:
        pieces.append(_riff(b"ICCP", extras.icc))
    pieces += [
        data.span(start - 8, end + (end - start) % 2)
        for kind, start, end in riff_chunks(data)
        if kind in (b"ALPH", b"VP8 ", b"VP8L")
    ]
    if extras.exif:
        pieces.append(_riff(b"EXIF", extras.exif))
    if extras.xmp:
        pieces.append(_riff(b"XMP ", extras.xmp))
    total = 4 + sum(len(piece) for piece in pieces)
    return [b"RIFF" + total.to_bytes(4, "little") + b"WEBP", *pieces], []


def _riff(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def _avif(data: Contents, extras: Extras) -> tuple[list[Piece], list[str]]:
    if extras.exif is None:
        return [data.span(0)], []
    return boxes.with_exif(data, extras.exif), []


def _tiff(data: Contents, extras: Extras) -> tuple[list[Piece], list[str]]:
    layout = ifd.layout_of(data)
    main = ifd.read_directory(data, ifd.first_position(data, layout), layout)
    entries = dict(main.entries)
    for tag in (exif.X_RESOLUTION, exif.Y_RESOLUTION, exif.RESOLUTION_UNIT):
        entries.pop(tag, None)
    if extras.dpi is not None:
        entries |= exif.resolution_entries(extras.dpi, layout)
    if extras.icc is not None:
        entries[34675] = ifd.undefined(extras.icc)
    if extras.xmp is not None:
        entries[700] = ifd.undefined(extras.xmp, ifd.BYTE)
    branches: list[tuple[int, dict[int, Entry]]] = []
    if extras.exif is not None:
        described, branches = _exif_parts(extras.exif, layout)
        entries |= described
    pad = b"\0" * (len(data) % 2)
    tree, position = ifd.build_tree(layout, entries, branches, len(data) + len(pad))
    slot = layout.slot
    return [data.span(0, slot), layout.pack(position, slot), data.span(2 * slot), pad, tree], []


def _exif_parts(block: bytes, target: Layout) -> tuple[dict[int, Entry], list[tuple[int, dict[int, Entry]]]]:
    """Take an EXIF block apart for a TIFF file: tags for its first directory, and sub-directories."""
    source = ifd.layout_of(block)
    main = ifd.read_directory(block, ifd.first_position(block, source), source)

    def turned(entries: dict[int, Entry]) -> dict[int, Entry]:
        return {tag: entry.turned(source, target) for tag, entry in entries.items()}

    branches = []
    for tag in (exif.EXIF_POINTER, exif.GPS_POINTER):
        position = main.first(tag, source)
        if position:
            try:
                branch = dict(ifd.read_directory(block, position, source).entries)
            except BrokenStructureError:
                continue
            branch.pop(exif.INTEROP_POINTER, None)
            branches.append((tag, turned(branch)))
    return turned({tag: entry for tag, entry in main.entries.items() if tag in DESCRIPTIVE}), branches
