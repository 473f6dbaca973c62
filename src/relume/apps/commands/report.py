"""`relume report`: trainings as one page that opens anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relume.apps.console import out


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of relume train; several are compared.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The page; default: report.html in the run's folder, or here for several runs. "
            "An older one is replaced.",
        ),
    ] = None,
) -> None:
    """Write curves, pictures and facts of trainings, also running or broken ones, as one HTML file."""
    from relume.core.errors import RelumeError
    from relume.train.reporting.page import write_page
    from relume.train.reporting.run import read_run

    page = output or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    if page.suffix.lower() not in (".html", ".htm"):
        raise RelumeError(f"{page}: the report is an HTML page; name it .html")
    found = [read_run(folder) for folder in runs]
    write_page(found, page)
    out.print(f"written: {page}", markup=False)
