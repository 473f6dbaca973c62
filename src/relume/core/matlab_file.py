"""MATLAB's `.mat` files (level 5, what `save` has written since 1996): their matrices of numbers.

Source: MathWorks, "MAT-File Format", chapter 1. A file is a header of 128 bytes and then elements:
a tag (type, length), the bytes, padding to eight bytes. Lengths up to four may sit in the tag. An
element may be a whole other element, packed by zlib; a matrix is an element that holds others:
flags, dimensions, name, real part; a cell array holds matrices in place of a real part. Text, structures,
sparse and complex matrices are passed over. Files of version 7.3 are HDF5, another format, and are refused.
What is written is not packed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relume.core.errors import CheckpointError

_HEADER = 128
_MATRIX, _PACKED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CELLS = 1
_DENSE = range(6, 16)  # classes: double, single and the integers
_COMPLEX = 0x08
_WRITTEN = {"float32": (7, 7), "float64": (6, 9)}
"""Classes of matrices that are written, and the types of their numbers."""
LONGEST = (1 << 31) - 1
"""Bytes that one matrix may have in this format."""
# A packed element of some kilobytes can claim to unpack to anything.
_MOST = 1 << 28
_DEEPEST = 8


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The real, dense matrices of a file by their names; those in a cell array as `name{1}`, `name{2}` ….

    Returns:
        float64 tensors of MATLAB's dimensions.

    Raises:
        CheckpointError: missing, damaged, or of another version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; check the path") from error
    if content[1:4] == b"HDF" or content[:19] == b"MATLAB 7.3 MAT-file":
        raise CheckpointError(f"{path} is a .mat of version 7.3; save it in MATLAB with the option '-v7'")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
    if order is None:
        raise CheckpointError(f"{path} is no MATLAB file of version 5 to 7; get the file anew")
    try:
        return dict(_matrices(memoryview(content)[_HEADER:], order))
    except (struct.error, zlib.error, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is a damaged MATLAB file ({error}); get the file anew") from error


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[np.float32 | np.float64]]) -> None:
    """Write matrices of single or double precision under their names; a file in the way is replaced.

    Each may have `LONGEST` bytes.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("wb") as file:
        file.write(b"MATLAB 5.0 MAT-file, by relume".ljust(124) + struct.pack("<H", 0x0100) + b"IM")
        for name, values in arrays.items():
            kind, numbers = _WRITTEN[values.dtype.name]
            head = (
                _element(6, struct.pack("<II", kind, 0))
                + _element(5, np.array(values.shape, "<i4").tobytes())
                + _element(1, name.encode("latin-1"))
                + struct.pack("<II", numbers, values.nbytes)
            )
            gap = -values.nbytes % 8
            file.write(struct.pack("<II", _MATRIX, len(head) + values.nbytes + gap) + head)
            # Columns first; one after the other, so that no second copy is made.
            for plane in np.moveaxis(values, -1, 0):
                file.write(plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes(order="F"))
            file.write(bytes(gap))


def _element(kind: int, data: bytes) -> bytes:
    """Return an element with its tag, padded."""
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def _matrices(content: memoryview, order: str) -> Iterator[tuple[str, Tensor]]:
    for kind, data in _elements(content, order):
        if kind == _PACKED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(data, _MOST)
            if unpacker.unconsumed_tail:
                raise ValueError(f"a matrix would unpack to more than {_MOST} bytes")
            yield from _matrices(memoryview(unpacked), order)
        elif kind == _MATRIX:
            yield from _matrix(data, order)


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The type and bytes of each element."""
    at = 0
    while at + 8 <= len(content):
        kind, length = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:  # the small form: length and type share the first word
            kind, length, start = kind & 0xFFFF, kind >> 16, at + 4
            following = at + 8
        else:
            start = at + 8
            # What is packed is not padded.
            following = start + (length if kind == _PACKED else -(-length // 8) * 8)
        if start + length > len(content):
            raise ValueError(f"an element of {length} bytes is cut short")
        yield kind, content[start : start + length]
        at = following


def _matrix(data: memoryview, order: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Its name and values, where they are real numbers; those of its cells, where it has such."""
    elements = _elements(data, order)
    try:
        (_, flags), (_, sides), (_, name), *parts = elements
    except ValueError:
        raise ValueError("a matrix lacks its parts") from None
    word = struct.unpack_from(f"{order}I", flags)[0]
    called = bytes(name).decode("latin-1")
    if word & 0xFF == _CELLS:
        if depth == _DEEPEST:
            raise ValueError(f"cells lie more than {_DEEPEST} deep in each other")
        for number, (kind, cell) in enumerate(parts, 1):
            # An empty element stands for an empty matrix.
            if kind == _MATRIX and len(cell):
                for inner, held in _matrix(cell, order, depth + 1):
                    yield f"{called}{{{number}}}{inner}", held
        return
    if word & 0xFF not in _DENSE or word >> 8 & _COMPLEX:
        return
    if not parts:
        raise ValueError("a matrix lacks its numbers")
    kind, numbers = parts[0]
    shape = np.frombuffer(sides, f"{order}i4")
    values = np.frombuffer(numbers, f"{order}{_NUMBERS[kind]}").astype(np.float64)
    yield called, torch.from_numpy(values.reshape(shape, order="F").copy())
