"""How commands speak: results to standard output, everything else to standard error."""

from __future__ import annotations

import io
import sys
import unicodedata

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
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


def progress_bar(*, unit: str = "") -> Progress:
    """Return a progress bar on standard error that disappears when done and is silent when piped."""
    return Progress(
        TextColumn("{task.description}", markup=False),  # it holds file names
        BarColumn(),
        TaskProgressColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
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
