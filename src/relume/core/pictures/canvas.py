"""Whole levels of a picture, in memory or on disk, filled and read by rows.

So a picture far larger than memory is made: only the rows in hand are ever floats.

Shapes: B bands (gray, gray + alpha, RGB or RGB + alpha; those of a cube), H height, W width, h rows in hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyvips
import torch
from torch import Tensor

from relume.core.errors import PictureError
from relume.core.pictures import ifd
from relume.core.pictures.contents import Contents, Scratch
from relume.core.pictures.ifd import Entry, Layout

Levels = npt.NDArray[np.uint8 | np.uint16 | np.float32]

ROWS: Final = 256
"""Rows that are worth taking at a time: many enough to be quick, few enough to be small."""

# Of the samples of cubes.
_FLOAT: Final = 32
# Bytes in hand while a picture on disk is turned.
_TURNED_AT_ONCE: Final = 1 << 24
# Before the levels on disk stands a BigTIFF header, see `_tiff_around`; and the rows of its strips.
_HEAD: Final = 16
_STRIP: Final = 16
_SPACES: Final = {(False, 8): "b-w", (False, 16): "grey16", (True, 8): "srgb", (True, 16): "rgb16"}


class NotANumberError(PictureError):
    """Values to be stored are no numbers."""


class Canvas:
    """Levels H×W×B of 8 to 16 bits, or a cube's floats of 32. Made by `empty` or `decoded`; a context
    manager, which closes it.

    Attributes:
        height: Rows.
        width: Columns.
        bands: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; any number of 32 bits.
        bits: Per sample: 8, 10, 12 or 16. The largest level, 2^bits - 1, stands for 1. Or 32, float32.
        folder: Where it lies on disk, None in memory.
    """

    def __init__(self, height: int, width: int, bands: int, bits: int, store: Levels | Scratch) -> None:
        known = bands > 0 if bits == _FLOAT else bands in (1, 2, 3, 4) and bits in (8, 10, 12, 16)
        if not (height > 0 and width > 0 and known):
            raise ValueError(f"no canvas can have {height}x{width}x{bands} levels of {bits} bits")
        self.height = height
        self.width = width
        self.bands = bands
        self.bits = bits
        self.folder = store.folder if isinstance(store, Scratch) else None
        self._store = store

    @classmethod
    def empty(cls, height: int, width: int, bands: int, bits: int, *, folder: Path | None = None) -> Canvas:
        """Make a canvas of levels that are still to be put.

        Args:
            height: Rows.
            width: Columns.
            bands: 1, 2, 3 or 4; any number of 32 bits.
            bits: 8, 10, 12, 16 or 32 per sample.
            folder: On whose disk it is to lie; None for memory.

        Raises:
            PictureError: When the folder cannot be written or its disk lacks the room.
            MemoryError: When memory does.
        """
        if folder is not None:
            head, tail = _tiff_around(height, width, bands, bits)
            end = len(head) + canvas_bytes(height, width, bands, bits)
            scratch = Scratch(folder, end + len(tail))
            scratch.write(0, head)
            scratch.write(end, tail)
            return cls(height, width, bands, bits, scratch)
        return cls(height, width, bands, bits, np.empty((height, width, bands), dtype=_dtype(bits)))

    @classmethod
    def decoded(cls, image: pyvips.Image, bits: int, *, folder: Path | None = None) -> Canvas:
        """Take the levels of a libvips image, strip by strip where they go on disk.

        Args:
            image: Of unsigned samples, 8-bit where `bits` is 8, else 16-bit.
            bits: As many as its samples use.
            folder: As for `empty`.

        Raises:
            PictureError: As `empty` does.
            pyvips.Error: When the image cannot be decoded.
        """
        height, width, bands = image.height, image.width, image.bands
        if folder is None:
            flat: Levels = np.frombuffer(image.write_to_memory(), dtype=_dtype(bits))
            return cls(height, width, bands, bits, flat.reshape(height, width, bands))
        canvas = cls.empty(height, width, bands, bits, folder=folder)
        assert isinstance(canvas._store, Scratch)
        image.rawsave_target(canvas._store.target(_HEAD), keep="none")
        return canvas

    @property
    def largest(self) -> int:
        """The level that stands for 1."""
        return 1 if self.bits == _FLOAT else (1 << self.bits) - 1

    @property
    def size(self) -> str:
        """Width and height as people write them: "640x480"."""
        return f"{self.width}x{self.height}"

    def rows(self, top: int, bottom: int) -> Tensor:
        """Return rows as float32 B×h×W, 0..1."""
        return self.window(top, bottom, 0, self.width)

    def window(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """Return a part as float32 B×(bottom - top)×(right - left), 0..1."""
        levels = self.levels(top, bottom, left, right)
        planes = np.empty((self.bands, *levels.shape[:2]), dtype=np.float32)
        for band, plane in enumerate(planes):
            np.divide(levels[..., band], np.float32(self.largest), out=plane, dtype=np.float32)
        return torch.from_numpy(planes)

    def put(self, top: int, values: Tensor) -> None:
        """Store full rows, in any order: clamped to 0..1 and, but for floats, rounded, halves up.

        Args:
            top: The first row.
            values: B×h×W on any device.

        Raises:
            NotANumberError: When a value is none.
            PictureError: When the disk refuses.
        """
        if values.ndim != 3 or values.shape[0] != self.bands or values.shape[2] != self.width:
            raise ValueError(f"{tuple(values.shape)} are no rows of {self.bands}×h×{self.width}")
        for at in range(0, values.shape[1], ROWS):
            planes = values[:, at : at + ROWS].detach()
            levels = np.empty((planes.shape[1], self.width, self.bands), dtype=_dtype(self.bits))
            for band, plane in enumerate(planes):
                rows = plane.to("cpu", torch.float32)
                if bool(torch.isnan(rows).any()):
                    raise NotANumberError(
                        "the picture holds values that are no numbers (NaN); restore it again in float32"
                    )
                rows = rows.clamp(0, 1)
                if self.bits != _FLOAT:
                    rows = rows.mul_(self.largest).add_(0.5).floor_()
                levels[..., band] = rows.numpy()
            self.put_levels(top + at, levels)

    def levels(self, top: int, bottom: int, left: int = 0, right: int | None = None) -> Levels:
        """Return a part as stored, h×w×B; in memory a view, to be left unchanged."""
        right = self.width if right is None else right
        if not (0 <= top <= bottom <= self.height and 0 <= left <= right <= self.width):
            raise ValueError(f"rows {top}:{bottom}, columns {left}:{right} lie outside {self.size}")
        store = self._store
        if not isinstance(store, Scratch):
            return store[top:bottom, left:right]
        dtype = _dtype(self.bits)
        pixel = self.bands * dtype.itemsize
        line, start, length = self.width * pixel, left * pixel, (right - left) * pixel
        if length == line:
            raw = store.read(_HEAD + top * line, (bottom - top) * line)
        else:
            raw = b"".join(store.read(_HEAD + row * line + start, length) for row in range(top, bottom))
        flat: Levels = np.frombuffer(raw, dtype=dtype)
        return flat.reshape(bottom - top, right - left, self.bands)

    def put_levels(self, top: int, levels: Levels) -> None:
        """Store full rows as they are, h×W×B.

        Raises:
            PictureError: When the disk refuses.
        """
        bottom = top + levels.shape[0]
        if levels.shape[1:] != (self.width, self.bands) or not 0 <= top <= bottom <= self.height:
            raise ValueError(f"{levels.shape} at row {top} do not fit into {self.size} of {self.bands} bands")
        if isinstance(self._store, Scratch):
            dtype = _dtype(self.bits)
            line = self.width * self.bands * dtype.itemsize
            self._store.write(_HEAD + top * line, np.ascontiguousarray(levels, dtype=dtype).data.cast("B"))
        else:
            self._store[top:bottom] = levels

    def turned(self, quarters: int, *, mirrored: bool) -> Canvas:
        """Return it turned left by quarters and then mirrored left to right; the same canvas for neither.

        Raises:
            PictureError: When it lies on disk and there is no room for another.
        """
        if quarters % 4 == 0 and not mirrored:
            return self
        upright = quarters % 2 == 0
        height, width = (self.height, self.width) if upright else (self.width, self.height)
        result = Canvas.empty(height, width, self.bands, self.bits, folder=self.folder)
        step = max(1, _TURNED_AT_ONCE // (width * self.bands * _dtype(self.bits).itemsize))
        for top in range(0, height, step):
            bottom = min(top + step, height)
            part = np.rot90(self._before_turning(quarters % 4, top, bottom), quarters)
            result.put_levels(top, part[:, ::-1] if mirrored else part)
        return result

    def _before_turning(self, quarters: int, top: int, bottom: int) -> Levels:
        """Return the part that turns into these rows."""
        if quarters == 0:
            return self.levels(top, bottom)
        if quarters == 2:
            return self.levels(self.height - bottom, self.height - top)
        if quarters == 1:
            top, bottom = self.width - bottom, self.width - top
        return self.levels(0, self.height, top, bottom)

    def image(self) -> pyvips.Image:
        """Return levels for libvips to read once, from top to bottom; 10 and 12 bits fill the upper of 16.

        The canvas must stay open and unchanged until the image has been read.
        """
        deep = self.bits > 8
        store = self._store
        if isinstance(store, Scratch):
            source = Contents(store.descriptor).source()
            image = pyvips.Image.tiffload_source(source, access="sequential", fail_on="error")
        else:
            kind = "ushort" if deep else "uchar"
            image = pyvips.Image.new_from_memory(store.data, self.width, self.height, self.bands, kind)
        if deep and self.bits < 16:
            image = image << (16 - self.bits)
        return image.copy(interpretation=_SPACES[self.bands >= 3, 16 if deep else 8])

    def close(self) -> None:
        """Give its memory or disk space back."""
        if isinstance(self._store, Scratch):
            self._store.close()
        else:
            self._store = np.empty((0, 0, 0), dtype=np.uint8)

    def __enter__(self) -> Canvas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def canvas_bytes(height: int, width: int, bands: int, bits: int) -> int:
    """Return how many bytes a canvas takes, in memory or on disk."""
    return height * width * bands * _dtype(bits).itemsize


def _tiff_around(height: int, width: int, bands: int, bits: int) -> tuple[bytes, bytes]:
    """Return what makes levels a TIFF file: its header before and its directory after them.

    libvips reads TIFF by strips, but takes files of bare levels into memory whole.
    """
    layout = Layout("<" if sys.byteorder == "little" else ">", big=True)
    line = width * bands * _dtype(bits).itemsize
    tops = np.arange(0, height, _STRIP, dtype=np.uint64)
    counts = np.minimum(_STRIP, height - tops.astype(np.int64)).astype(np.uint64) * np.uint64(line)
    end = _HEAD + height * line

    def shorts(*numbers: int) -> Entry:
        return Entry(ifd.SHORT, len(numbers), b"".join(layout.pack(number, 2) for number in numbers))

    entries = {
        256: ifd.long(width, layout),
        257: ifd.long(height, layout),
        258: shorts(*[8 * _dtype(bits).itemsize] * bands),
        259: shorts(1),  # not compressed
        262: shorts(1 if bands < 3 else 2),  # black is 0, or RGB
        273: Entry(ifd.LONG8, len(tops), (tops * np.uint64(line) + np.uint64(_HEAD)).tobytes()),
        277: shorts(bands),
        278: ifd.long(_STRIP, layout),
        279: Entry(ifd.LONG8, len(tops), counts.tobytes()),
    }
    if bands in (2, 4):
        entries[338] = shorts(2)  # alpha, colour not multiplied by it
    head = (
        (b"II+\0" if layout.order == "<" else b"MM\0+") + layout.pack(8, 2) + bytes(2) + layout.pack(end, 8)
    )
    return head, ifd.build_directory(entries, end, layout)


def _dtype(bits: int) -> np.dtype[np.uint8 | np.uint16 | np.float32]:
    if bits == _FLOAT:
        return np.dtype(np.float32)
    return np.dtype(np.uint16 if bits > 8 else np.uint8)
