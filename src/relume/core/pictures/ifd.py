"""Read and extend TIFF directories, the structure that TIFF files and EXIF share.

Existing bytes never move: a directory that grows is written anew at the end and the
pointer to it changed. So what points into the file by absolute position (maker notes
do) stays right.

Follows TIFF 6.0 (section 2) and, for 64-bit positions, BigTIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from relume.core.pictures.contents import Contents

# Bytes per value by field type; 16-18 are BigTIFF's.
_SIZES: Final = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
# Width of the units that a change of byte order turns round (a rational is two longs).
_UNITS: Final = {**_SIZES, 5: 4, 10: 4}

Data = bytes | Contents
"""What structures are read from: bytes in memory, or a file."""

BYTE: Final = 1
ASCII: Final = 2
SHORT: Final = 3
LONG: Final = 4
RATIONAL: Final = 5
UNDEFINED: Final = 7
LONG8: Final = 16

# A file could let all of its tags name the same bytes, and so grow without end when read.
_MOST_TAGS: Final = 1 << 16
_MOST_BYTES: Final = 1 << 26


class BrokenStructureError(ValueError):
    """The bytes are no TIFF structure, or point outside themselves."""


@dataclass(frozen=True)
class Layout:
    """How numbers and positions are written: byte order "<" or ">", 32 or 64 bits."""

    order: str
    big: bool = False

    @property
    def slot(self) -> int:
        """Bytes of the value-or-position field of an entry."""
        return 8 if self.big else 4

    def number(self, data: Data, at: int, size: int) -> int:
        """Read an unsigned number of `size` bytes.

        Raises:
            BrokenStructureError: When it lies outside `data`.
        """
        raw = bytes(data[at : at + size])
        if at < 0 or len(raw) != size:
            raise BrokenStructureError(f"position {at} lies outside the {len(data)} bytes")
        return int.from_bytes(raw, "little" if self.order == "<" else "big")

    def pack(self, number: int, size: int) -> bytes:
        """Write an unsigned number in `size` bytes."""
        return number.to_bytes(size, "little" if self.order == "<" else "big")


@dataclass(frozen=True)
class Entry:
    """One tag's value: field type, count of values, and the raw bytes in the file's order."""

    type: int
    count: int
    value: bytes

    def numbers(self, layout: Layout) -> list[float]:
        """Return the values as numbers; rationals become quotients (0 where undefined)."""
        unsigned = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
        if self.type in unsigned:
            return list(struct.unpack(f"{layout.order}{self.count}{unsigned[self.type]}", self.value))
        if self.type == RATIONAL:
            parts = struct.unpack(f"{layout.order}{2 * self.count}I", self.value)
            return [
                top / bottom if bottom else 0.0 for top, bottom in zip(parts[::2], parts[1::2], strict=True)
            ]
        return []

    def turned(self, source: Layout, target: Layout) -> Entry:
        """Return the entry in another byte order."""
        unit = _UNITS[self.type]
        if source.order == target.order or unit == 1:
            return self
        pieces = (self.value[at : at + unit][::-1] for at in range(0, len(self.value), unit))
        return Entry(self.type, self.count, b"".join(pieces))


@dataclass(frozen=True)
class Directory:
    """The tags of one directory, where it lies, and the position of the next one (0: none).

    `lost` counts the entries that are of unknown type or whose values lie outside the data.
    """

    position: int
    entries: dict[int, Entry]
    next: int
    lost: int = 0

    def first(self, tag: int, layout: Layout) -> int | None:
        """Return a tag's first value as a whole number, None where it is missing or odd."""
        entry = self.entries.get(tag)
        numbers = entry.numbers(layout) if entry else []
        return int(numbers[0]) if numbers else None


def layout_of(data: Data) -> Layout:
    """Read the header's byte order and width.

    Raises:
        BrokenStructureError: When the first bytes are no TIFF header.
    """
    head = bytes(data[:4])
    known = {
        b"II*\0": Layout("<"),
        b"MM\0*": Layout(">"),
        b"II+\0": Layout("<", True),
        b"MM\0+": Layout(">", True),
    }
    if head not in known:
        raise BrokenStructureError("no TIFF header")
    return known[head]


def first_position(data: Data, layout: Layout) -> int:
    """Return the position of the first directory."""
    return layout.number(data, layout.slot, layout.slot)


def read_directory(data: Data, position: int, layout: Layout) -> Directory:
    """Read the directory at a position; entries of unknown type or outside `data` are left out.

    So are those that would make all values together longer than `data`, or than 64 MiB: those of a sound
    file lie side by side.

    Raises:
        BrokenStructureError: When the directory itself lies outside `data`.
    """
    counter, slot = (8, 8) if layout.big else (2, 4)
    length = 4 + 2 * slot
    count = layout.number(data, position, counter)
    start = position + counter
    after = start + count * length
    if position < layout.slot or after > len(data) or count > _MOST_TAGS:
        raise BrokenStructureError(
            f"a directory of {count} tags at {position} lies outside the {len(data)} bytes"
        )
    entries: dict[int, Entry] = {}
    room = min(len(data), _MOST_BYTES)
    for at in range(start, after, length):
        tag, kind = layout.number(data, at, 2), layout.number(data, at + 2, 2)
        values = layout.number(data, at + 4, slot)
        size = _SIZES.get(kind, 0) * values
        where = at + 4 + slot if size <= slot else layout.number(data, at + 4 + slot, slot)
        if kind in _SIZES and where + size <= len(data) and size <= room:
            room -= size
            entries[tag] = Entry(kind, values, bytes(data[where : where + size]))
    # Some writers leave the pointer to the next directory out at the very end.
    following = layout.number(data, after, slot) if after + slot <= len(data) else 0
    return Directory(position, entries, following, count - len(entries))


def directory_sizes(data: Data, layout: Layout) -> Iterator[int]:
    """Yield for each directory of a chain how many bytes its values claim outside the directory itself.

    Ends at the first directory that was there before, or lies outside `data`.
    """
    counter, slot = (8, 8) if layout.big else (2, 4)
    fields = struct.Struct(f"{layout.order}2xH{'Q8x' if layout.big else 'I4x'}")
    seen: set[int] = set()
    position = first_position(data, layout)
    while position not in seen and 0 < position <= len(data) - counter:
        seen.add(position)
        count = layout.number(data, position, counter)
        after = position + counter + count * fields.size
        if count > _MOST_TAGS or after > len(data):
            return
        table = fields.iter_unpack(data[position + counter : after])
        sizes = (_SIZES.get(kind, 1) * number for kind, number in table)
        yield sum(size for size in sizes if slot < size <= len(data))
        position = layout.number(data, after, slot) if after + slot <= len(data) else 0


def with_number(block: bytes, directory: Directory, tag: int, number: int, layout: Layout) -> bytes:
    """Overwrite the one number of a tag in place; any 32-bit number fits into an entry's slot."""
    counter, slot = (8, 8) if layout.big else (2, 4)
    length = 4 + 2 * slot
    data = bytearray(block)
    start = directory.position + counter
    for at in range(start, start + length * layout.number(block, directory.position, counter), length):
        if layout.number(block, at, 2) == tag:
            kind = SHORT if number < 1 << 16 and layout.number(block, at + 2, 2) == SHORT else LONG
            value = layout.pack(number, 2 if kind == SHORT else 4).ljust(slot, b"\0")
            data[at + 2 : at + length] = layout.pack(kind, 2) + layout.pack(1, slot) + value
    return bytes(data)


def build_directory(entries: dict[int, Entry], position: int, layout: Layout, *, following: int = 0) -> bytes:
    """Write a directory, and the values that do not fit into it, to lie at a position (even)."""
    counter, slot = (8, 8) if layout.big else (2, 4)
    table = [layout.pack(len(entries), counter)]
    values: list[bytes] = []
    end = position + counter + len(entries) * (4 + 2 * slot) + slot
    for tag in sorted(entries):
        entry = entries[tag]
        table.append(layout.pack(tag, 2) + layout.pack(entry.type, 2) + layout.pack(entry.count, slot))
        if len(entry.value) <= slot:
            table.append(entry.value.ljust(slot, b"\0"))
        else:
            table.append(layout.pack(end, slot))
            padded = entry.value + b"\0" * (len(entry.value) % 2)
            values.append(padded)
            end += len(padded)
    table.append(layout.pack(following, slot))
    return b"".join(table + values)


def short(number: int, layout: Layout) -> Entry:
    """Make an entry of one 16-bit number."""
    return Entry(SHORT, 1, layout.pack(number, 2))


def long(number: int, layout: Layout) -> Entry:
    """Make an entry of one 32-bit number."""
    return Entry(LONG, 1, layout.pack(number, 4))


def rational(top: int, bottom: int, layout: Layout) -> Entry:
    """Make an entry of one quotient of 32-bit numbers."""
    return Entry(RATIONAL, 1, layout.pack(top, 4) + layout.pack(bottom, 4))


def undefined(value: bytes, kind: int = UNDEFINED) -> Entry:
    """Make an entry of raw bytes."""
    return Entry(kind, len(value), value)


def build_tree(
    layout: Layout, main: dict[int, Entry], branches: Iterable[tuple[int, dict[int, Entry]]], position: int
) -> tuple[bytes, int]:
    """Write sub-directories and then the main one that points to them.

    Args:
        layout: Byte order and width.
        main: Tags of the main directory.
        branches: For each pointer tag of the main directory, the tags behind it.
        position: Where the result will lie (even).

    Returns:
        The bytes and the position of the main directory.
    """
    written: list[bytes] = []
    entries = dict(main)
    for tag, branch in branches:
        if branch:
            entries[tag] = long(position, layout)
            written.append(build_directory(branch, position, layout))
            position += len(written[-1])
    written.append(build_directory(entries, position, layout))
    return b"".join(written), position
