"""Writing MATLAB's files byte by byte, as the format's description has them."""

import struct
import zlib

import numpy as np


def element(order, kind, data):
    if len(data) <= 4:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def matrix(order, name, array, kind=9, code="f8", mclass=6, flags=0):
    parts = (
        element(order, 6, struct.pack(f"{order}II", flags << 8 | mclass, 0))
        + element(order, 5, np.array(array.shape, f"{order}i4").tobytes())
        + element(order, 1, name.encode())
        + element(order, kind, array.astype(f"{order}{code}").tobytes(order="F"))
    )
    return element(order, 14, parts)


def cells(order, name, *matrices):
    """A cell array of a row of matrices."""
    parts = (
        element(order, 6, struct.pack(f"{order}II", 1, 0))
        + element(order, 5, np.array((1, len(matrices)), f"{order}i4").tobytes())
        + element(order, 1, name.encode())
        + b"".join(matrices)
    )
    return element(order, 14, parts)


def matlab(order, *elements, packed=False):
    mark = b"IM" if order == "<" else b"MI"
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + mark
    if packed:
        packs = [zlib.compress(each) for each in elements]
        elements = [struct.pack(f"{order}II", 15, len(each)) + each for each in packs]
    return head + b"".join(elements)


def save(path, arrays):
    """Write arrays by name, as double."""
    path.write_bytes(matlab("<", *(matrix("<", name, np.asarray(array)) for name, array in arrays.items())))
