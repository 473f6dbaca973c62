"""EXIF as bytes: what must change when a picture is turned, resized or moved to another format.

A block is a bare TIFF structure. It is edited in place or extended at its end, never
rebuilt, so that every tag stays, known or not, maker notes with their absolute
positions included. Follows CIPA DC-008 (Exif 2.32).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from relume.core.pictures import ifd
from relume.core.pictures.ifd import BrokenStructureError, Directory, Entry, Layout

ORIENTATION: Final = 0x0112
EXIF_POINTER: Final = 0x8769
GPS_POINTER: Final = 0x8825
INTEROP_POINTER: Final = 0xA005
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
_WIDTHS: Final = (0x0100, 0xA002)
_HEIGHTS: Final = (0x0101, 0xA003)
_THUMBNAIL_AT, _THUMBNAIL_BYTES = 0x0201, 0x0202


def clean(block: bytes) -> bytes:
    """Take off the "Exif" prefix of JPEG and AVIF and check that the rest can be read.

    Raises:
        BrokenStructureError: When it cannot.
    """
    block = block.removeprefix(b"Exif\0\0")
    layout = ifd.layout_of(block)
    if layout.big:
        raise BrokenStructureError("EXIF has no 64-bit form")
    _main(block, layout)
    return block


def orientation(block: bytes) -> int:
    """Return 1..8; 1 where nothing or nonsense is said."""
    layout = ifd.layout_of(block)
    value = _main(block, layout).first(ORIENTATION, layout)
    return value if value is not None and 1 <= value <= 8 else 1


def upright(block: bytes) -> bytes:
    """Return the block for a picture that has been turned: orientation 1, no thumbnail (it lies still)."""
    layout = ifd.layout_of(block)
    if orientation(block) == 1:
        return block
    block = ifd.with_number(block, _main(block, layout), ORIENTATION, 1, layout)
    return without_thumbnail(block)


def fitted(block: bytes, width: int, height: int) -> bytes:
    """Return the block for a picture of this size.

    Sizes are set where the block states them; the thumbnail goes unless the block
    states exactly this size already.
    """
    layout = ifd.layout_of(block)
    main = _main(block, layout)
    same = _states(block, main, width, height, layout)
    for directory in (main, _branch(block, main, EXIF_POINTER, layout)):
        for tags, size in ((_WIDTHS, width), (_HEIGHTS, height)):
            for tag in tags:
                if directory is not None and tag in directory.entries:
                    block = ifd.with_number(block, directory, tag, size, layout)
    return block if same else without_thumbnail(block)


def without_thumbnail(block: bytes) -> bytes:
    """Return the block without its second directory; the small picture itself is blanked or cut off."""
    layout = ifd.layout_of(block)
    main = _main(block, layout)
    if main.next == 0:
        return block
    data = bytearray(block)
    pointer = main.position + 2 + 12 * layout.number(block, main.position, 2)
    data[pointer : pointer + 4] = bytes(4)
    try:
        second = ifd.read_directory(block, main.next, layout)
    except BrokenStructureError:
        return bytes(data)
    start = second.first(_THUMBNAIL_AT, layout) or 0
    end = start + (second.first(_THUMBNAIL_BYTES, layout) or 0)
    # Only what is a JPEG may be wiped: a wrong position must not cost other tags.
    if 8 <= start < end <= len(data) and data[start : start + 2] == b"\xff\xd8":
        if end == len(data):
            del data[start:]
        else:
            data[start:end] = bytes(end - start)
    return bytes(data)


def resolution(block: bytes) -> tuple[float, float] | None:
    """Return the stated resolution in pixels per inch, None where there is none."""
    layout = ifd.layout_of(block)
    return directory_resolution(_main(block, layout), layout)


def directory_resolution(directory: Directory, layout: Layout) -> tuple[float, float] | None:
    """Return the resolution that a TIFF directory states, in pixels per inch."""
    values = []
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        entry = directory.entries.get(tag)
        numbers = entry.numbers(layout) if entry else []
        values.append(float(numbers[0]) if numbers else 0.0)
    unit = directory.first(RESOLUTION_UNIT, layout)
    per_inch = {None: 1.0, 2: 1.0, 3: 2.54}.get(unit)
    if per_inch is None or min(values) <= 0:
        return None
    return round(values[0] * per_inch, 4), round(values[1] * per_inch, 4)


def resolution_entries(dpi: tuple[float, float], layout: Layout) -> dict[int, Entry]:
    """Return the three tags that state a resolution."""
    across, down = (Fraction(value).limit_denominator(10_000) for value in dpi)
    return {
        X_RESOLUTION: ifd.rational(across.numerator, across.denominator, layout),
        Y_RESOLUTION: ifd.rational(down.numerator, down.denominator, layout),
        RESOLUTION_UNIT: ifd.short(2, layout),
    }


def with_resolution(block: bytes | None, dpi: tuple[float, float], *, add: bool) -> bytes | None:
    """Return the block with this resolution.

    Args:
        block: EXIF or None.
        dpi: Pixels per inch.
        add: Whether to state it where the block (or no block) has not stated any, as
            formats without a field of their own need. Otherwise only what is there is
            kept in step.
    """
    if block is None:
        layout = Layout("<")
        header = b"II*\0" + layout.pack(8, 4)
        return header + ifd.build_directory(resolution_entries(dpi, layout), 8, layout) if add else None
    layout = ifd.layout_of(block)
    main = _main(block, layout)
    stated = directory_resolution(main, layout)
    if stated == tuple(dpi) or (stated is None and not add):
        return block
    block += b"\0" * (len(block) % 2)
    entries = main.entries | resolution_entries(dpi, layout)
    fresh = ifd.build_directory(entries, len(block), layout, following=main.next)
    return block[:4] + layout.pack(len(block), 4) + block[8:] + fresh


def _main(block: bytes, layout: Layout) -> Directory:
    return ifd.read_directory(block, ifd.first_position(block, layout), layout)


def _branch(block: bytes, main: Directory, tag: int, layout: Layout) -> Directory | None:
    position = main.first(tag, layout)
    if position is None:
        return None
    try:
        return ifd.read_directory(block, position, layout)
    except BrokenStructureError:
        return None


def _states(block: bytes, main: Directory, width: int, height: int, layout: Layout) -> bool:
    directory = _branch(block, main, EXIF_POINTER, layout) or main
    across = next(
        (directory.first(tag, layout) for tag in reversed(_WIDTHS) if tag in directory.entries), None
    )
    down = next(
        (directory.first(tag, layout) for tag in reversed(_HEIGHTS) if tag in directory.entries), None
    )
    return (across, down) == (width, height)
