"""Put files out so that nothing half-done is ever seen under their names."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relume.core.errors import OutputExistsError, RelumeError

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


def check_target(path: Path, *, overwrite: bool, error: type[RelumeError] = RelumeError) -> Path:
    """Check that a file may be written, before any work goes into it.

    Args:
        path: The file.
        overwrite: Whether an older file may be replaced.
        error: What to raise when it cannot be written.

    Returns:
        The path with symbolic links followed, so that a link is written through and not replaced.

    Raises:
        OutputExistsError: When it is there and `overwrite` is false.
        RelumeError: Of the kind asked for, when its folder is missing or may not be written, or it
            is itself a folder.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise error(f"{path}: this is a folder; name the file to write in it")
        if not target.parent.is_dir():
            raise error(f"{path}: the folder {target.parent} does not exist; create it or choose another")
        if os.path.lexists(target) and not overwrite:
            raise _exists_error(path)
        if target.exists() and not target.is_file():
            raise error(f"{path}: this is a device or pipe; name an ordinary file")
    except (OSError, ValueError) as problem:
        raise error(f"{path}: cannot be written: {reason(problem)}") from None
    effective = os.access in os.supports_effective_ids
    if not os.access(target.parent, os.W_OK | os.X_OK, effective_ids=effective):
        raise error(
            f"{path}: the folder {target.parent} may not be written; choose another or change its permissions"
        )
    return target


@contextmanager
def whole(path: Path, *, overwrite: bool = True, error: type[RelumeError] = RelumeError) -> Iterator[Path]:
    """Write a file so that its name shows the whole content or nothing.

    Gives an empty hidden file in the same folder to write into. On success it takes the name in
    one step; whatever fails, it is removed and an older file stays.

    Args:
        path: The file.
        overwrite: Whether an older file may be replaced.
        error: What to raise when it cannot be written.

    Raises:
        OutputExistsError: When the file is there, or has appeared meanwhile, and `overwrite` is false.
        RelumeError: Of the kind asked for, when it cannot be written.
    """
    target = check_target(path, overwrite=overwrite, error=error)
    # The target's own name is left out, so that the longest allowed name works too.
    hidden = target.parent / f".relume-{secrets.token_hex(8)}.part"
    made = False
    try:
        # Made here, so that it has the permissions of any new file, whatever a library gives its own.
        descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        made = True
        mode = stat.S_IMODE((target if target.exists() else hidden).stat().st_mode)
        os.close(descriptor)
        yield hidden
        with contextlib.suppress(OSError):
            hidden.chmod(mode)
        with hidden.open("r+b") as written:
            os.fsync(written.fileno())
        if overwrite:
            hidden.replace(target)
        else:
            take_free_name(hidden, target, path)
    except OSError as problem:
        raise error(f"{path}: cannot be written: {reason(problem)}") from None
    finally:
        if made:
            hidden.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, its lines as they are; the file appears whole or not at all.

    A file's name in it that is not UTF-8 keeps its bytes.

    Raises:
        RelumeError: it cannot be written.
    """
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def take_alone(descriptor: int, busy: RelumeError) -> None:
    """Keep other processes out that ask for the same file, for as long as it is open; not on Windows.

    Args:
        descriptor: of the file or folder.
        busy: what is raised where another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise busy from None


@contextmanager
def alone_in(folder: Path, busy: RelumeError) -> Iterator[None]:
    """Keep other processes out that ask for the same folder; not on Windows, where folders are not opened.

    Args:
        folder: the folder; nothing is left in it.
        busy: what is raised where another process has it.
    """
    if os.name == "nt":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        take_alone(descriptor, busy)
        yield
    finally:
        os.close(descriptor)


def _exists_error(path: Path) -> OutputExistsError:
    return OutputExistsError(
        f"{path}: exists already and was kept; allow overwriting (--overwrite) or choose another name"
    )


def take_free_name(hidden: Path, target: Path, shown: Path) -> None:
    """Give the hidden file its name unless someone else has taken it meanwhile."""
    try:
        os.link(hidden, target)
    except FileExistsError:
        raise _exists_error(shown) from None
    except OSError:
        # Some file systems know no hard links; a small gap remains there.
        if os.path.lexists(target):
            raise _exists_error(shown) from None
        hidden.replace(target)


def reason(error: OSError | ValueError) -> str:
    """Return why the system refused, in words that say what to do where we know."""
    number = error.errno if isinstance(error, OSError) else None
    return _REASONS.get(number or 0) or getattr(error, "strerror", None) or str(error)
