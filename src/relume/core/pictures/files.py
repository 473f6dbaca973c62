"""Take files in and put files out so that nothing half-done is ever seen under a picture's name."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from relume.core.errors import OutputExistsError, PictureError

_numbers = itertools.count()

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file would be larger than the system allows; choose another folder or lift the limit",
    errno.EACCES: "permission is missing; choose another folder or change its permissions",
    errno.EPERM: "permission is missing; choose another folder or change its permissions",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOTDIR: "a part of its path is a file, not a folder; check the path",
    errno.ELOOP: "its symbolic links lead in a circle; check the path",
}


def open_regular(path: Path) -> tuple[int, int]:
    """Open an ordinary file for reading.

    Returns:
        The file descriptor, which the caller closes, and the size in bytes.

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
        raise PictureError(f"{path}: cannot be read: {_reason(error)}") from None
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
    return descriptor, status.st_size


def check_target(path: Path, *, overwrite: bool) -> Path:
    """Check that a file may be written, before any work goes into it.

    Returns:
        The path with symbolic links followed, so that a link is written through and not replaced.

    Raises:
        OutputExistsError: When it is there and `overwrite` is false.
        PictureError: When its folder is missing or may not be written, or it is itself a folder.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise PictureError(f"{path}: this is a folder; name the file to write in it")
        if not target.parent.is_dir():
            raise PictureError(
                f"{path}: the folder {target.parent} does not exist; create it or choose another"
            )
        if os.path.lexists(target) and not overwrite:
            raise exists_error(path)
        if target.exists() and not target.is_file():
            raise PictureError(f"{path}: this is a device or pipe; name an ordinary file")
    except (OSError, ValueError) as error:
        raise PictureError(f"{path}: cannot be written: {_reason(error)}") from None
    effective = os.access in os.supports_effective_ids
    if not os.access(target.parent, os.W_OK | os.X_OK, effective_ids=effective):
        raise PictureError(
            f"{path}: the folder {target.parent} may not be written; choose another or change its permissions"
        )
    return target


def exists_error(path: Path) -> OutputExistsError:
    """Make the error for an output that is already there."""
    return OutputExistsError(f"{path}: exists already and was kept; allow overwriting or choose another name")


def write_whole(pieces: Iterable[bytes | memoryview], target: Path, *, shown: Path, overwrite: bool) -> None:
    """Write a file so that its name shows the whole content or nothing.

    The content goes to a hidden file in the same folder, which then takes the name in
    one step. Whatever fails, the hidden file is removed and an older file stays.

    Args:
        pieces: The content, in order.
        target: As `check_target` returned it.
        shown: The path to name in messages.
        overwrite: Whether an older file may be replaced.

    Raises:
        OutputExistsError: When the file has appeared meanwhile and `overwrite` is false.
        PictureError: When it cannot be written.
    """
    # The target's own name is left out, so that the longest allowed name works too.
    hidden = target.parent / f".relume-{os.getpid()}-{next(_numbers)}.part"
    try:
        descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                if target.exists():
                    with contextlib.suppress(OSError):
                        hidden.chmod(stat.S_IMODE(target.stat().st_mode))
                hidden.replace(target)
            else:
                _take_free_name(hidden, target, shown)
        finally:
            hidden.unlink(missing_ok=True)
    except OSError as error:
        raise PictureError(f"{shown}: cannot be written: {_reason(error)}") from None


def _take_free_name(hidden: Path, target: Path, shown: Path) -> None:
    """Give the hidden file its name unless someone else has taken it meanwhile."""
    try:
        os.link(hidden, target)
    except FileExistsError:
        raise exists_error(shown) from None
    except OSError:
        # Some file systems know no hard links; a small gap remains there.
        if os.path.lexists(target):
            raise exists_error(shown) from None
        hidden.replace(target)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, a NUL in it
        return False


def _reason(error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return _REASONS.get(number or 0) or getattr(error, "strerror", None) or str(error)
