"""`relume prepare`: from a folder of photos to pieces that a training reads fast."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from relume.apps.console import err, megabytes, out, printable, progress_bar, say, say_error, say_note

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from relume.data.preparation.running import Prepared

MOST_SHOWN = 20
"""Refused photos that are told in full; of more, the index or a report tells."""

# Below so many photos for each, starting a process takes longer than it saves.
_WORTH = 40


class Form(StrEnum):
    """What pieces are written as."""

    NPY = "npy"
    PNG = "png"


def prepare(
    folder: Annotated[Path, typer.Argument(help="Folder of photos, searched to any depth.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for pieces and index; a preparation in it goes on."),
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only look, and say what would be refused and why.")
    ] = False,
    side: Annotated[
        int, typer.Option("--side", "--patch", min=1, help="Side of the square pieces, pixels.")
    ] = 512,
    overlap: Annotated[
        int, typer.Option(min=0, help="Pixels that neighbours share; patches up to one more are all there.")
    ] = 128,
    form: Annotated[
        Form,
        typer.Option("--as", help="npy: levels as they are, read fastest; png: smaller, keeps 16 bits."),
    ] = Form.NPY,
    least: Annotated[int, typer.Option(min=1, help="Shorter side that a photo must have, pixels.")] = 256,
    quality: Annotated[
        int, typer.Option(min=0, max=100, help="Least JPEG quality, 1 to 100; 0 takes any.")
    ] = 75,
    blockiness: Annotated[
        float, typer.Option(min=0, help="Levels by which JPEG's blocks may stand out; 0 takes any.")
    ] = 2.0,
    alike: Annotated[
        int, typer.Option(min=0, max=16, help="How unlike, in bits of 64, like photos may be; 0: same files.")
    ] = 8,
    sharpness: Annotated[
        float, typer.Option(min=0, help="Drop blurred and flat pieces below this, e.g. 20; 0 keeps all.")
    ] = 0.0,
    held_back: Annotated[
        list[Path] | None,
        typer.Option("--without", help="Test set whose pictures must not be among them; may be repeated."),
    ] = None,
    max_megapixels: Annotated[float, typer.Option(help="Largest photo that is decoded.")] = 500.0,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that work; 0: one for each core, if it is worth it.")
    ] = 0,
    report: Annotated[
        Path | None, typer.Option("--report", help="Also write the table of photos as .csv or .json.")
    ] = None,
) -> None:
    """Check photos, refuse broken, small, compressed and double ones, and cut the rest into pieces."""
    from relume.core.errors import RelumeError
    from relume.data.preparation.judging import PreparationConfig
    from relume.data.preparation.records import check_table, write_table
    from relume.data.preparation.running import count_pictures
    from relume.data.preparation.running import prepare as run

    if check_only == (output is not None):
        raise RelumeError("name a folder for the pieces with -o, or give --check-only; one of both")
    config = PreparationConfig.parse(
        {
            "side": side, "overlap": overlap, "form": form.value, "least": least, "quality": quality,
            "blockiness": blockiness, "alike": alike, "sharpness": sharpness,
            "max_megapixels": max_megapixels,
        },
        where="relume prepare",
    )  # fmt: skip
    if report is not None:
        check_table(report, output=output)
    if not workers:
        workers = max(1, min(_cores(), count_pictures(folder, leave_out=output) // _WORTH))
    with progress_bar() as bar:
        result = run(
            folder, output, config, _Bar(bar), held_back=held_back or (), workers=workers
        )  # fmt: skip
    refused = [row for row in result.rows if row["state"] == "refused"]
    for row in refused[:MOST_SHOWN]:
        say(f"refused: {row['source']}: {row['reason']}")
    if len(refused) > MOST_SHOWN:
        where = report or (f"{output / 'index.json'}" if output else "--report FILE.csv")
        say_note(f"{len(refused) - MOST_SHOWN} more were refused; {where} names them")
    if result.withdrawn:
        say_note(
            f"the pieces of {result.withdrawn} photos cut before were removed, as the photos are gone, have "
            "changed or are refused now"
        )
    if result.others:
        listed = ", ".join(f"{count} {ending}" for ending, count in result.others.most_common(8))
        say_note(f"left out, as they are no pictures that can be read: {listed}")
    out.print(_table(result))
    if report is not None:
        write_table(report, result.rows)
    if len(refused) == len(result.rows):
        say_error("no photo was taken")
        raise typer.Exit(1)
    if output is not None:
        out.print(f"train with them: relume train VARIANT --data {printable(str(output))}", markup=False)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Bar:
    """Shows how far the work is."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._what = ""

    def begun(self, what: str, total: int) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._what = what
        self._task = self._bar.add_task(f"{what} photos", total=total)
        if not err.is_terminal and total:
            err.print(f"{what} {total} photos")

    def done(self, source: str) -> None:
        assert self._task is not None
        self._bar.update(self._task, advance=1, description=f"{self._what} {printable(source)}")


def _table(result: Prepared) -> Table:
    """Sum up: how many photos were taken or refused, for which kind of reason."""
    table = Table()
    table.add_column("photos")
    for column in ("number", "megapixels", "pieces", "on disk"):
        table.add_column(column, justify="right")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in result.rows:
        groups.setdefault(kind_of(row["reason"]), []).append(row)
    for name in sorted(groups, key=lambda name: (name != "taken", name)):
        found = groups[name]
        pieces = [row["pieces"] for row in found if row["pieces"]]
        table.add_row(
            Text(name),
            str(len(found)),
            f"{sum(row['height'] * row['width'] for row in found) / 1e6:,.1f}",
            f"{sum(len(each['places']) for each in pieces):,}" if pieces else "",
            megabytes(sum(each["bytes"] for each in pieces)) if pieces else "",
        )
    return table


def kind_of(reason: str | None) -> str:
    """Return the kind of reason, for counting."""
    if reason is None:
        return "taken"
    for start, kind in (
        ("too small", "too small"),
        ("too large", "too large"),
        ("its header states", "too large"),
        ("too compressed", "too compressed"),
        ("the same file", "twice the same file"),
        ("is like", "like another"),
        ("is in the set held back", "in a set held back"),
        ("none of its pieces", "nothing sharp"),
        ("it has transparent", "transparent"),
    ):
        if reason.startswith(start):
            return kind
    return "broken or unreadable"
