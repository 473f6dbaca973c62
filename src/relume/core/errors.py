"""Errors that a user can mend, each told in one line.

A message names what is wrong, where, the limit, and what to do. Everything the
command line prints as an error is a `RelumeError`; anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

# What a terminal obeys or turns round; names and keys from a hostile file may hold it.
_OBEYED = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_LONGEST = 4000


class RelumeError(Exception):
    """Base of every error that the user, not the programmer, can mend."""

    def __init__(self, message: str) -> None:
        # Library messages quoted inside ours may hold line breaks; a user gets one line.
        line = " ".join(line.strip() for line in message.splitlines()).translate(_OBEYED)
        super().__init__(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…")

    def of(self, place: str) -> Self:
        """Return the same error with the name of what it is about before its message."""
        error = type(self).__new__(type(self))
        RelumeError.__init__(error, f"{place}: {self}")
        return error


class PictureError(RelumeError):
    """A picture cannot be read or written as asked."""


class OutputExistsError(RelumeError):
    """The output is already there and overwriting was not asked for."""


class CheckpointError(RelumeError):
    """A weights file is broken, unsafe, or fits no known architecture."""


class ConfigError(RelumeError):
    """A setting does not exist or has a value that cannot be used."""


class DataError(RelumeError):
    """A folder of pictures lacks what training or evaluation needs."""


class MissingDependencyError(RelumeError):
    """An optional library is needed for what was asked."""

    def __init__(self, library: str, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {library}; install it with: pip install 'relume[{extra}]'")


class UnknownNameError(RelumeError):
    """A name (model, method, recipe key …) is not known; the nearest one is proposed."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        close = nearest(name, known)
        if close:
            advice = f"did you mean {close!r}?"
        elif known:
            shown = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
            advice = f"known: {shown}"
        else:
            advice = "none are known"
        super().__init__(f"unknown {kind} {name[:200]!r}; {advice}{' ' + hint if hint else ''}")


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Put a setting's name before the message of an error that its value leads to."""
    try:
        yield
    except RelumeError as error:
        raise error.of(setting) from error


def unexpected(error: Exception) -> str:
    """Return what is said of an exception that no user can mend, where it must not stop other work."""
    said = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}: {said}; this is a bug, please report it"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, or None when nothing comes close."""
    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.5)
    return folded[close[0]] if close else None
