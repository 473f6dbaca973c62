"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relume.core.errors import OutputExistsError, RelumeError


@contextmanager
def whole(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is renamed into place, else removed.

    The temporary name is hidden, holds the process number and keeps the suffix.

    Raises:
        OutputExistsError: the file is there and `overwrite` is false.
        RelumeError: the folder is missing or closed to us, or the disk is full.
    """
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder; name a file")
    if not overwrite and path.exists():
        raise OutputExistsError(
            f"{path} exists and is kept; choose another name or allow overwriting (--overwrite)"
        )
    if not path.parent.is_dir():
        raise RelumeError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    partial = path.with_name(f".{path.stem[:100]}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise RelumeError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        partial.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return "the disk is full; free some space or write elsewhere"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "the folder may not be written to; choose another or change its permissions"
        case _:
            return error.strerror or str(error)
