"""`relume jobs`: what a batch's manifest knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relume.apps.console import say, say_error


def jobs(
    manifest: Annotated[Path, typer.Argument(help="A batch's .relume-job.sqlite, or the folder it lies in.")],
    report: Annotated[
        Path | None, typer.Option(help="Also write a table of all pictures, .csv or .json.")
    ] = None,
) -> None:
    """Tell how far a batch has come, and every picture that failed; not while it runs."""
    from relume.apps.reporting import check_report, write_report
    from relume.infer.batch.manifest import FILE_NAME, Manifest
    from relume.infer.batch.records import State

    if report is not None:
        check_report(report)
    path = manifest / FILE_NAME if manifest.is_dir() else manifest
    with Manifest.resume(path) as opened:
        for record in opened.records(State.FAILED, asked=False):
            say_error(record.reason)
        for record in opened.records(State.SKIPPED, asked=False):
            say(f"{record.source}: skipped: {record.reason}")
        counts = opened.counts(asked=False)
        left = counts[State.PLANNED] + counts[State.STARTED] + counts[State.READY]
        say(
            f"{counts[State.DONE]} enlarged, {counts[State.FAILED]} failed, {counts[State.SKIPPED]} skipped, "
            f"{left} left"
        )
        if left:
            say(f"go on with: relume upscale --resume {path}")
        if report is not None:
            write_report(opened.records(asked=False), report)
