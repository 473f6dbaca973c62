"""How commands speak: results to standard output, everything else to standard error."""

from __future__ import annotations

import io
import sys
import unicodedata
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):
        # A file name may hold what the terminal's encoding lacks; saying it must not stop the work.
        _stream.reconfigure(errors="backslashreplace")

# Without `emoji=False`, a file named ":cat:.png" would be shown as a picture of a cat.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


class _SecondsLeft(ProgressColumn):
    """The time left as somebody knows it better than the bar does."""

    def __init__(self, seconds_left: Callable[[], float | None]) -> None:
        super().__init__()
        self._seconds_left = seconds_left

    def render(self, task: Task) -> Text:
        seconds = None if task.total is None else self._seconds_left()
        shown = "-:--:--" if seconds is None else str(timedelta(seconds=int(seconds)))
        return Text(shown, style="progress.remaining")


def progress_bar(*, unit: str = "", seconds_left: Callable[[], float | None] | None = None) -> Progress:
    """Return a progress bar on standard error that disappears when done and is silent when piped.

    Args:
        unit: shown behind the share.
        seconds_left: gives the time left, None as long as that is not known; None has the bar guess it.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),  # it holds file names
        BarColumn(),
        TaskProgressColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn() if seconds_left is None else _SecondsLeft(seconds_left),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def say(message: str) -> None:
    """Print a result as one line."""
    # A line written past a running progress bar would be glued to it, so on a terminal both go one way.
    console = err if out.is_terminal and err.is_terminal else out
    console.print(Text(printable(message)))


def say_error(message: str) -> None:
    """Print an error as one line."""
    err.print(Text.assemble(("error:", "bold red"), " ", printable(message)))


def say_note(message: str) -> None:
    """Print something that the user should know, as one line."""
    err.print(Text.assemble(("note:", "yellow"), " ", printable(message)))


def printable(text: str) -> str:
    """Return text with line breaks, control characters and bytes that are no text written as escapes.

    File names and files' contents are quoted in messages, and may hold what commands a terminal.
    """
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in text
    )


def megabytes(count: int | None) -> str:
    """Return bytes as text for people."""
    if count is None:
        return "not measured on this system"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
