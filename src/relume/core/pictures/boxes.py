"""The boxes of ISO media files, as far as AVIF needs them.

Follows ISO/IEC 14496-12 (boxes) and 23008-12 (items, their properties and references).
libheif writes EXIF through libvips only after libexif has rewritten it, with tags that
nobody stated; so EXIF is put in here, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relume.core.pictures.contents import Contents, Piece
from relume.core.pictures.ifd import BrokenStructureError, Data

_MOST_BOXES = 20_000
# Bytes between a box's header and its first inner box.
_PREFIX = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4}


@dataclass(frozen=True)
class Box:
    """Where a box begins, where its content starts, and where it ends."""

    kind: bytes
    begin: int
    start: int
    end: int


def inside(data: Data, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes that lie one after the other between two positions.

    Raises:
        BrokenStructureError: When one reaches past the end, or there are more than any sound file has.
    """
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        length, header = int.from_bytes(data[start : start + 4], "big"), 8
        if length == 1:
            length, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif length == 0:
            length = end - start
        if length < header or start + length > end:
            raise BrokenStructureError(f"a box of {length} bytes at {start} reaches past its container")
        yield Box(data[start + 4 : start + 8], start, start + header, start + length)
        start += length
    raise BrokenStructureError(f"more than {_MOST_BOXES} boxes in one")


def meta(data: Data) -> Box:
    """Return the box that describes the file's items.

    Raises:
        BrokenStructureError: When there is none.
    """
    for box in inside(data, 0, len(data)):
        if box.kind == b"meta":
            return box
    raise BrokenStructureError("no meta box")


def walk(data: Data, box: Box, *path: bytes) -> Iterator[Box]:
    """Yield the boxes found below `box` by following kinds downwards."""
    for inner in inside(data, box.start + _PREFIX[box.kind], box.end):
        if inner.kind == path[0]:
            if len(path) == 1:
                yield inner
            else:
                yield from walk(data, inner, *path[1:])


def with_exif(data: Contents, block: bytes) -> list[Piece]:
    """Return an AVIF file, as libheif has just written it, with an EXIF item added.

    Returns:
        The pieces of the new file, in order.

    Raises:
        BrokenStructureError: When the file is laid out in another way than expected.
    """
    head = meta(data)
    parts = {box.kind: box for box in inside(data, head.start + 4, head.end)}
    if not {b"iloc", b"iinf", b"pitm"} <= parts.keys():
        raise BrokenStructureError("the meta box lacks a list of items")
    identity, infos = _item_infos(data, parts[b"iinf"])
    primary = data[parts[b"pitm"].start + 4 : parts[b"pitm"].start + 6]
    reference = _box(b"cdsc", identity + b"\0\1" + primary)
    references = data[parts[b"iref"].start : parts[b"iref"].end] if b"iref" in parts else bytes(4)
    locations = data[parts[b"iloc"].start : parts[b"iloc"].end]
    # EXIF inside HEIF begins with the distance to its TIFF header.
    payload = bytes(4) + block
    fresh = {b"iinf": infos, b"iref": _box(b"iref", references + reference)}
    grown = head.end - head.begin
    for _ in range(2):  # once to learn how much the header grows, once with the right positions
        end = len(data) + grown - (head.end - head.begin)
        shift = grown - (head.end - head.begin)
        fresh[b"iloc"] = _box(
            b"iloc", _locations(locations, identity, shift, head.end, end + 8, len(payload))
        )
        inner = b"".join(fresh.get(kind, data[box.begin : box.end]) for kind, box in parts.items())
        if b"iref" not in parts:
            inner += fresh[b"iref"]
        built = _box(b"meta", data[head.start : head.start + 4] + inner)
        grown = len(built)
    return [data.span(0, head.begin), built, data.span(head.end), _box(b"mdat", payload)]


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def _item_infos(data: Data, box: Box) -> tuple[bytes, bytes]:
    """Return a free item number and the list of items with an EXIF item of that number."""
    version = data[box.start]
    count = int.from_bytes(data[box.start + 4 : box.start + 6], "big")
    items = list(inside(data, box.start + 6, box.end))
    if version != 0 or len(items) != count or any(data[item.start] != 2 for item in items):
        raise BrokenStructureError("the list of items is of another version")
    used = [int.from_bytes(data[item.start + 4 : item.start + 6], "big") for item in items]
    identity = (max(used, default=0) + 1).to_bytes(2, "big")
    # Version 2, hidden, item number, no protection, type, empty name.
    item = _box(b"infe", b"\2\0\0\1" + identity + b"\0\0" + b"Exif" + b"\0")
    head = data[box.start : box.start + 4] + (count + 1).to_bytes(2, "big")
    return identity, _box(b"iinf", head + data[box.start + 6 : box.end] + item)


def _locations(table: bytes, identity: bytes, shift: int, after: int, position: int, length: int) -> bytes:
    """Return the table of item positions: those behind the header moved, the new item added."""
    if table[:5] != b"\0\0\0\0\x44" or table[5] not in (0x00, 0x40):
        raise BrokenStructureError("the table of item positions is of another version")
    base = table[5] >> 4
    count = int.from_bytes(table[6:8], "big")
    out = [table[:6], (count + 1).to_bytes(2, "big")]
    at = 8
    for _ in range(count):
        origin = int.from_bytes(table[at + 4 : at + 4 + base], "big")
        extents = int.from_bytes(table[at + 4 + base : at + 6 + base], "big")
        # libheif counts from the item's own origin; otherwise each extent is counted from 0.
        moved = origin + shift if origin >= after else origin
        out += [table[at : at + 4], moved.to_bytes(base, "big"), table[at + 4 + base : at + 6 + base]]
        at += 6 + base
        for _ in range(extents):
            where = int.from_bytes(table[at : at + 4], "big")
            where += shift if origin == 0 and where >= after else 0
            out += [where.to_bytes(4, "big"), table[at + 4 : at + 8]]
            at += 8
    item = identity + b"\0\0" + bytes(base) + b"\0\1"
    return b"".join([*out, item, position.to_bytes(4, "big"), length.to_bytes(4, "big")])
