"""Bytes of files that need not fit in memory: looked into, cut and copied where they lie.

A file is never mapped: mapped pages count as memory in use, and a file that shrinks
meanwhile would end the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, overload

import pyvips

from relume.core.errors import PictureError
from relume.core.files import reason

# Structures are read in pieces of a few bytes; one fetched block serves many of them.
_BLOCK: Final = 1 << 14
_COPIED: Final = 1 << 20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Where the system reads and writes only at a file's own position (Windows), one at a time may.
_position = threading.Lock()


class Contents:
    """The bytes of an open file, as long as it was when this was made.

    `contents[8:16]` and `contents[0]` fetch just these, as `bytes` give them; slices are
    cut off at the end and take no step.

    Args:
        descriptor: The file, which stays the caller's to close.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._block = b""
        self._block_at = 0

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...
    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, int):
            if not 0 <= key < self._size:
                raise IndexError(f"position {key} lies outside the {self._size} bytes")
            return self._fetch(key, key + 1)[0]
        start, end, _ = key.indices(self._size)
        return self._fetch(start, max(start, end))

    def span(self, start: int, end: int | None = None) -> Span:
        """Return a stretch of the file, to be copied later."""
        start, end, _ = slice(start, end).indices(self._size)
        return Span(self._descriptor, start, max(start, end))

    def source(self) -> pyvips.Source:
        """Return the file for libvips to load from."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return pyvips.Source.new_from_descriptor(self._descriptor)

    def _fetch(self, start: int, end: int) -> bytes:
        if end - start > _BLOCK // 2:
            return read_at(self._descriptor, start, end - start)
        if not self._block_at <= start <= end <= self._block_at + len(self._block):
            self._block, self._block_at = read_at(self._descriptor, start, _BLOCK), start
        return self._block[start - self._block_at : end - self._block_at]


@dataclass(frozen=True)
class Span:
    """A stretch of an open file, from `start` to before `end`."""

    descriptor: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes, some at a time."""
        for at in range(self.start, self.end, _COPIED):
            yield read_at(self.descriptor, at, min(_COPIED, self.end - at))


Piece = bytes | Span
"""A part of a file that is being put together."""


class Scratch:
    """A hidden file that is gone when it is closed, no longer used, or the process ends in whatever way.

    (Where open files cannot lose their names, on Windows, a killed process leaves it behind.)

    Args:
        folder: Where it lies.
        size: Bytes it will hold, as far as known; the room is made sure of.

    Raises:
        PictureError: When the folder cannot be written or lacks the room.
    """

    def __init__(self, folder: Path, size: int = 0) -> None:
        self.folder = folder
        try:
            free = shutil.disk_usage(folder).free
            if free < size:
                raise PictureError(
                    f"{folder}: the pixels need {_gigabytes(size)} of disk space here and {_gigabytes(free)} "
                    "are free; free some space or choose another folder"
                )
            self.descriptor, name = tempfile.mkstemp(prefix=".relume-", suffix=".part", dir=folder)
        except OSError as problem:
            raise self._refused(problem) from None
        kept: str | None = name
        if os.name == "posix":
            Path(name).unlink()
            kept = None
        self._close = weakref.finalize(self, _drop, self.descriptor, kept)
        if size:
            self._reserve(size)

    def read(self, at: int, length: int) -> bytes:
        """Read from a position; short only at the end."""
        return read_at(self.descriptor, at, length)

    def target(self, at: int) -> pyvips.Target:
        """Return the file for libvips to save to, from a position on."""
        os.lseek(self.descriptor, at, os.SEEK_SET)
        return pyvips.Target.new_to_descriptor(self.descriptor)

    def write(self, at: int, data: bytes | memoryview) -> None:
        """Write at a position.

        Raises:
            PictureError: When the disk is full, or refuses otherwise.
        """
        try:
            data = memoryview(data)
            while data:
                written = _write_at(self.descriptor, at, data[:_COPIED])
                at, data = at + written, data[written:]
        except OSError as problem:
            raise self._refused(problem) from None

    def close(self) -> None:
        """Give the disk space back."""
        self._close()

    def _reserve(self, size: int) -> None:
        """Take the room now, so that it is not missing after an hour's work."""
        try:
            os.posix_fallocate(self.descriptor, 0, size)
        except (AttributeError, OSError) as problem:
            # Some systems and file systems know no such thing; there the first check stands alone.
            if isinstance(problem, OSError) and problem.errno in _FULL:
                raise self._refused(problem) from None

    def _refused(self, problem: OSError) -> PictureError:
        return PictureError(f"{self.folder}: a temporary file cannot be written: {reason(problem)}")


def read_at(descriptor: int, at: int, length: int) -> bytes:
    """Read from a position of a file; short only at its end."""
    parts = []
    while length > 0:
        part = _read_once(descriptor, at, length)
        if not part:
            break
        parts.append(part)
        at, length = at + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_once(descriptor: int, at: int, length: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, at)
    with _position:
        os.lseek(descriptor, at, os.SEEK_SET)
        return os.read(descriptor, length)


def _write_at(descriptor: int, at: int, data: memoryview) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, at)
    with _position:
        os.lseek(descriptor, at, os.SEEK_SET)
        return os.write(descriptor, data)


def _drop(descriptor: int, name: str | None) -> None:
    os.close(descriptor)
    if name is not None:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
