"""Broken files out of sound ones: bytes changed, pieces cut, repeated, swapped, taken from elsewhere.

Each format is split where its own structure has its seams, so that a change reaches
past the first check: lengths and checksums can be mended after it.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Pieces = list[bytes]

NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 16, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 1 << 24),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 33, (1 << 63) - 1, (1 << 64) - 1),
)


class File(bytes):
    """Content of a file, which a report of Hypothesis shall not print whole."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes, SHA-256 {hashlib.sha256(self).hexdigest()}>"


WORDS = (
    *(b"0", b"1", b"-1", b"7", b"1.5", b"1e308", b"99999", b"4294967296", b"1" * 400, b"null", b"true"),
    *(b'""', b'"F64"', b'"BOOL"', b'"x"', b"[]", b"{}", b"[[1]]", b"[0", b"0]", b"}", b"[" * 200, b'\\"x\\"'),
)


@st.composite
def broken(draw: Any, seeds: Callable[[], tuple[bytes, ...]], kind: str) -> File:
    """Draw a broken file.

    Args:
        draw: Hypothesis.
        seeds: gives sound files of one kind.
        kind: which seams the files have; any other name means none.
    """
    split, mend = SEAMS.get(kind, (lambda data: [data], None))
    pieces = split(draw(st.sampled_from(seeds())))
    changes = (_bytes, _bytes, _bytes, _number, _number, _number, _shape, _graft)
    if kind == "safetensors":
        changes += (_word,) * 8
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 2, 3, 6)))):
        if not pieces:
            break
        change = draw(st.sampled_from(changes))
        change(draw, pieces, lambda: split(draw(st.sampled_from(seeds()))))
    if mend is not None and draw(st.integers(0, 3)):
        pieces = mend(pieces)
    data = b"".join(pieces)
    if draw(st.integers(0, 15)) == 15:
        data = data[: draw(st.integers(0, len(data)))]
    return File(data)


def _bytes(draw: Any, pieces: Pieces, _: Callable[[], Pieces]) -> None:
    """Change single bits or bytes of a piece."""
    at = draw(st.integers(0, len(pieces) - 1))
    data = bytearray(pieces[at])
    for _ in range(draw(st.integers(1, 4))):
        if data:
            where = draw(st.integers(0, len(data) - 1))
            data[where] = draw(
                st.one_of(st.just(data[where] ^ 1 << draw(st.integers(0, 7))), st.integers(0, 255))
            )
    pieces[at] = bytes(data)


def _number(draw: Any, pieces: Pieces, _: Callable[[], Pieces]) -> None:
    """Put an awkward number of 2, 4 or 8 bytes into a piece."""
    at = draw(st.integers(0, len(pieces) - 1))
    size, order = draw(st.sampled_from((2, 4, 8))), draw(st.sampled_from(("big", "little")))
    number = draw(st.sampled_from(NUMBERS)) & ((1 << 8 * size) - 1)
    data = pieces[at]
    where = draw(st.integers(0, max(0, min(len(data) - size, 400))))
    pieces[at] = data[:where] + number.to_bytes(size, order) + data[where + size :]


def _word(draw: Any, pieces: Pieces, _: Callable[[], Pieces]) -> None:
    """Put an awkward value of JSON in the place of a piece, and keep what parts it from the next."""
    at = draw(st.integers(1, max(1, min(len(pieces) - 2, 500)))) if len(pieces) > 2 else 0
    parting = pieces[at][-1:] if pieces[at][-1:] in (b",", b":") else b""
    pieces[at] = draw(st.sampled_from(WORDS)) + parting


def _shape(draw: Any, pieces: Pieces, _: Callable[[], Pieces]) -> None:
    """Drop, repeat, swap, cut or lengthen pieces."""
    first, second = draw(st.integers(0, len(pieces) - 1)), draw(st.integers(0, len(pieces) - 1))
    match draw(st.sampled_from(("drop", "repeat", "swap", "cut", "lengthen", "flood"))):
        case "drop":
            del pieces[first]
        case "repeat":
            pieces.insert(second, pieces[first])
        case "swap":
            pieces[first], pieces[second] = pieces[second], pieces[first]
        case "cut":
            pieces[first] = pieces[first][: draw(st.integers(0, len(pieces[first])))]
        case "lengthen":
            where = draw(st.integers(0, len(pieces[first])))
            added = draw(st.sampled_from((b"\0", b"\xff", b"A" * 300, bytes(70_000))))
            pieces[first] = pieces[first][:where] + added + pieces[first][where:]
        case _:
            room = 1_000_000 // max(1, len(pieces[first]))
            pieces[second:second] = [pieces[first]] * min(draw(st.sampled_from((10, 1000))), room)


def _graft(draw: Any, pieces: Pieces, other: Callable[[], Pieces]) -> None:
    """Put a piece of another file in."""
    foreign = other()
    piece = foreign[draw(st.integers(0, len(foreign) - 1))]
    at = draw(st.integers(0, len(pieces) - 1))
    if draw(st.booleans()):
        pieces[at] = piece
    else:
        pieces.insert(at, piece)


def split_png(data: bytes) -> Pieces:
    """Signature, then a piece for each chunk."""
    pieces, at = [data[:8]], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        pieces.append(data[at:end])
        at = end
    return pieces


def _mend_png(pieces: Pieces) -> Pieces:
    """Lengths and checksums made right."""
    mended = []
    for piece in pieces:
        if piece.startswith(b"\x89PNG") or len(piece) < 12:
            mended.append(piece)
            continue
        body = piece[4:-4]
        mended.append((len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big"))
    return mended


def split_jpeg(data: bytes) -> Pieces:
    """Start, then a piece for each segment, and the coded pixels."""
    pieces, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        pieces.append(data[at:end])
        at = end
    return [*pieces, data[at:]]


def _mend_jpeg(pieces: Pieces) -> Pieces:
    """Lengths of all segments made right."""
    return [
        piece[:2] + min(len(piece) - 2, 0xFFFF).to_bytes(2, "big") + piece[4:]
        if len(piece) > 4 and piece[0] == 0xFF and piece[1] not in (0xD8, 0xDA)
        else piece
        for piece in pieces
    ]


def _split_tiff(data: bytes) -> Pieces:
    """Header, what lies before the first directory, its entries one by one, and the rest."""
    order = "little" if data[:2] == b"II" else "big"
    big = 43 in data[2:4]
    slot, counter, length = (8, 8, 20) if big else (4, 2, 12)
    at = int.from_bytes(data[slot : 2 * slot], order)
    entries = int.from_bytes(data[at : at + counter], order)
    pieces = [data[: 2 * slot], data[2 * slot : at], data[at : at + counter]]
    at += counter
    pieces += [data[at + length * index : at + length * (index + 1)] for index in range(entries)]
    return [*pieces, data[at + length * entries :]]


def split_riff(data: bytes) -> Pieces:
    """Header, then a piece for each chunk."""
    pieces, at = [data[:12]], 12
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        pieces.append(data[at : at + 8 + size + size % 2])
        at += 8 + size + size % 2
    return pieces


def mend_riff(pieces: Pieces) -> Pieces:
    """All lengths made right."""
    chunks = [
        piece[:4] + (len(piece) - 8).to_bytes(4, "little") + piece[8:] + b"\0" * (len(piece) % 2)
        for piece in pieces[1:]
        if len(piece) >= 8
    ]
    total = 4 + sum(len(chunk) for chunk in chunks)
    return [b"RIFF" + total.to_bytes(4, "little") + b"WEBP", *chunks]


def split_avif(data: bytes) -> Pieces:
    """A piece for each box, those inside `meta` and `iprp` one by one."""
    pieces, at = [], 0
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size < 8:
            break
        inner = {b"meta": 12, b"iprp": 8, b"ipco": 8}.get(name)
        if inner is None:
            pieces.append(data[at : at + size])
        else:
            pieces += [data[at : at + inner], *split_avif(data[at + inner : at + size])]
        at += size
    return [*pieces, data[at:]] if at < len(data) else pieces


def _mend_avif(pieces: Pieces) -> Pieces:
    """Lengths of the boxes that hold no others made right."""
    return [
        len(piece).to_bytes(4, "big") + piece[4:]
        if len(piece) >= 8 and piece[4:8] not in (b"meta", b"iprp", b"ipco")
        else piece
        for piece in pieces
    ]


def _split_safetensors(data: bytes) -> Pieces:
    """Length, header cut at its values, and tensors."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b",", b",\0").replace(b":", b":\0").split(b"\0")
    return [data[:8], *header, data[8 + length :]]


def _mend_safetensors(pieces: Pieces) -> Pieces:
    """The header's length made right."""
    return [struct.pack("<Q", sum(len(piece) for piece in pieces[1:-1])), *pieces[1:]]


def _split_zip(data: bytes) -> Pieces:
    """For each member its name and its content."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [part for name in archive.namelist() for part in (name.encode(), archive.read(name))]


def _mend_zip(pieces: Pieces) -> Pieces:
    """A sound archive of what the pieces now are."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # of the same name twice
        for raw, content in zip(pieces[::2], pieces[1::2], strict=False):
            name = raw.decode("latin-1").replace("\0", "_")[:30_000]
            archive.writestr(zipfile.ZipInfo(name or "_"), content)
    return [file.getvalue()]


SEAMS: dict[str, tuple[Callable[[bytes], Pieces], Callable[[Pieces], Pieces] | None]] = {
    "png": (split_png, _mend_png),
    "jpeg": (split_jpeg, _mend_jpeg),
    "tiff": (_split_tiff, None),
    "webp": (split_riff, mend_riff),
    "avif": (split_avif, _mend_avif),
    "safetensors": (_split_safetensors, _mend_safetensors),
    "zip": (_split_zip, _mend_zip),
}
