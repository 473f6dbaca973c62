"""How commands speak: results to standard output, everything else to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def progress_bar(*, unit: str = "") -> Progress:
    """Return a progress bar on standard error that disappears when done and is silent when piped."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def say_error(message: str) -> None:
    """Print an error as one line."""
    err.print(f"[bold red]error:[/] {_plain(message)}")


def say_note(message: str) -> None:
    """Print something that the user should know, as one line."""
    err.print(f"[yellow]note:[/] {_plain(message)}")


def _plain(message: str) -> str:
    return message.replace("[", r"\[")


def megabytes(count: int | None) -> str:
    """Return bytes as text for people."""
    if count is None:
        return "not measured on this system"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
