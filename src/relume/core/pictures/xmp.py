"""XMP as bytes: the few statements that a turned or resized picture makes false.

XMP repeats EXIF's orientation and size as text, as attributes or as elements; the
packet is otherwise kept to the byte.
"""

from __future__ import annotations

import re

_ORIENTATION = (b"tiff:Orientation",)
_WIDTH = (b"tiff:ImageWidth", b"exif:PixelXDimension")
_HEIGHT = (b"tiff:ImageLength", b"exif:PixelYDimension")


def upright(packet: bytes) -> bytes:
    """Return the packet with orientation 1 where it states any."""
    return _restate(packet, _ORIENTATION, 1)


def fitted(packet: bytes, width: int, height: int) -> bytes:
    """Return the packet with this size where it states any."""
    return _restate(_restate(packet, _WIDTH, width), _HEIGHT, height)


def _restate(packet: bytes, names: tuple[bytes, ...], number: int) -> bytes:
    value = str(number).encode()
    for name in names:
        packet = re.sub(name + rb"(\s*=\s*[\"'])\d+(?=[\"'])", lambda m, n=name: n + m[1] + value, packet)  # type: ignore[misc]
        packet = re.sub(name + rb"(\s*>\s*)\d+(?=\s*<)", lambda m, n=name: n + m[1] + value, packet)  # type: ignore[misc]
    return packet
