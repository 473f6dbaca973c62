"""Open a picture file, refusing what is no ordinary file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from relume.core.errors import PictureError
from relume.core.files import reason


def open_regular(path: Path) -> int:
    """Open an ordinary file for reading.

    Returns:
        The file descriptor, which the caller closes.

    Raises:
        PictureError: When there is none, it is a folder or device, is empty, or may not be read.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise PictureError(f"{path}: there is no such file; check the path") from None
    except (OSError, ValueError) as error:
        if _is_folder(path):
            raise PictureError(
                f"{path}: this is a folder, a picture file is due; name one file in it"
            ) from None
        raise PictureError(f"{path}: cannot be read: {reason(error)}") from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise PictureError(f"{path}: this is a folder, a picture file is due; name one file in it")
        if not stat.S_ISREG(status.st_mode):
            raise PictureError(
                f"{path}: this is a device or pipe, a picture file is due; save the data to a file first"
            )
        if status.st_size == 0:
            raise PictureError(f"{path}: the file is empty (0 bytes); get it anew from where it came")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, a NUL in it
        return False
