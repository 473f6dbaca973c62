"""`relume compare`: what each model makes of one detail of a photo, side by side."""

from __future__ import annotations

import gc
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from relume.apps.console import megabytes, out, printable, progress_bar, say, say_error, say_note
from relume.core.errors import RelumeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from relume.core.expense import Expense
    from relume.core.pictures import Picture
    from relume.infer.crops import Crop

_SIDE = 128
"""Side in pixels of the detail that is chosen where none is named."""

_COLUMNS = 4


@dataclass(frozen=True)
class Compared:
    """What one model made of the detail.

    Attributes:
        name: the model's.
        engine: what it ran on.
        expense: what running it took, beyond the idle program with the model loaded.
        consistency: agreement with the input in dB, see `infer.consistency`.
        pixels: the output, `C H W`.
    """

    name: str
    engine: str
    expense: Expense
    consistency: float
    pixels: Tensor

    @property
    def figures(self) -> dict[str, Any]:
        """The row as flat plain values, for both kinds of file."""
        return {
            "model": self.name,
            "engine": self.engine,
            "seconds": round(self.expense.seconds, 4),
            "memory_bytes": self.expense.memory,
            "consistency_db": round(self.consistency, 3) if math.isfinite(self.consistency) else "inf",
        }


def compare(
    photo: Annotated[Path, typer.Argument(help="The picture.")],
    names: Annotated[
        list[str] | None,
        typer.Option("--name", "-n", help="A model or weights file to take in as well; may be repeated."),
    ] = None,
    scale: Annotated[int, typer.Option("--scale", "-s", min=1, help="Compare the models of this scale.")] = 4,
    crop: Annotated[
        str | None,
        typer.Option(help="The detail as x,y,w,h in the photo's pixels; default: where it has most detail."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The sheet, a PNG; default: PHOTO_compare.png.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--output-table", help="Also write the figures, as .csv or .json.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda …; default: a GPU where there is one.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Enlarge one detail with every model that fits, and lay the results side by side."""
    from relume.core.pictures import read
    from relume.core.sheets import contact_sheet, save_sheet

    sheet = output or photo.with_name(f"{photo.stem}_compare.png")
    _check_outputs(photo, sheet, table, overwrite=overwrite)
    chosen = _models(scale, names or [])
    picture = read(photo)
    part = _part(picture, crop)
    detail = picture.replace(pixels=part.of(picture.pixels).contiguous(), alpha=None)
    if picture.alpha is not None:
        say_note(f"{photo.name}: transparency is left out of the comparison")

    rows, failures = _run_all(chosen, detail, scale=scale, device=device)
    save_sheet(
        contact_sheet(
            [
                (f"{row.name}\n{row.expense.seconds:.2f} s, consistency {_agreement(row)}", row.pixels)
                for row in rows
            ],
            columns=min(_COLUMNS, len(rows)),
        ),
        sheet,
    )
    if table is not None:
        _write_table(table, rows, photo=photo, picture=picture, part=part, scale=scale)
    out.print(_shown(rows, title=f"{printable(photo.name)} at {part}, x{scale}"))
    say(f"written: {sheet}" + (f" and {table}" if table else ""))
    for failure in failures:
        say_error(failure)
    if failures:
        raise typer.Exit(1)


def _check_outputs(photo: Path, sheet: Path, table: Path | None, *, overwrite: bool) -> None:
    """Refuse before the work what would fail after it, or cost the photo."""
    from relume.core.files import check_target
    from relume.core.tables import table_kind

    if sheet.suffix.lower() != ".png":
        raise RelumeError(f"{sheet}: the sheet is a PNG; name it with .png")
    if table is not None:
        table_kind(table)  # refuses other endings
    places = [os.path.realpath(path) for path in (photo, sheet, table) if path is not None]
    if len(set(places)) < len(places):
        raise RelumeError(f"{sheet}: photo, sheet and figures need three different names; choose another")
    for path in (sheet, table):
        if path is not None:
            check_target(path, overwrite=overwrite)


def _models(scale: int, more: list[str]) -> list[str]:
    """Names of the models to compare: those that come with weights for this scale, and those asked for."""
    from relume.apps.face import variant_named
    from relume.core.catalogue import variants

    ready = [
        each.name
        for each in variants().values()
        if each.scale == scale and each.weights_path and each.weights_path.is_file()
    ]
    chosen = list(dict.fromkeys([*ready, *(variant_named(name, scale) for name in more)]))
    if not chosen:
        raise RelumeError(
            f"no model of scale {scale} comes with weights; name one with -n, or see relume models"
        )
    return chosen


def _part(picture: Picture, crop: str | None) -> Crop:
    from relume.infer.crops import most_detailed, parse_crop

    if crop is None:
        return most_detailed(picture.pixels, side=_SIDE)
    return parse_crop(crop, height=picture.height, width=picture.width)


def _run_all(
    names: list[str], detail: Picture, *, scale: int, device: str | None
) -> tuple[list[Compared], list[str]]:
    """Run bicubic and each model; give their rows, and a line for each that could not be run."""
    from relume.nn.resize import imresize

    def bicubic() -> Tensor:
        height, width = detail.height * scale, detail.width * scale
        return imresize(detail.pixels, height=height, width=width).clamp_(0, 1)

    rows = [_measure("bicubic", bicubic, detail, engine="torch on cpu", device="cpu")]
    failures = []
    with progress_bar() as bar:
        task = bar.add_task("", total=len(names))
        for name in names:
            bar.update(task, description=printable(name))
            try:
                rows.append(_run(name, detail, scale=scale, device=device))
            except RelumeError as error:
                failures.append(str(error))
            gc.collect()  # the next model's memory is measured against what is held now
            bar.advance(task)
    return rows, failures


def _run(name: str, detail: Picture, *, scale: int, device: str | None) -> Compared:
    from relume.apps.face import load

    restorer = load(name, device=device)
    if restorer.scale != scale:
        raise RelumeError(
            f"{name} enlarges by {restorer.scale}, and models of x{scale} are compared; "
            f"leave it out or use --scale {restorer.scale}"
        )
    corner = detail.replace(pixels=detail.pixels[:, :8, :8].contiguous())
    restorer(corner)  # sets up what is set up once for all models
    return _measure(
        restorer.name, lambda: restorer(detail).pixels, detail,
        engine=str(restorer.engine), device=restorer.engine.device,
    )  # fmt: skip


def _measure(name: str, run: Callable[[], Tensor], detail: Picture, *, engine: str, device: str) -> Compared:
    from relume.core.expense import expense_of
    from relume.infer.consistency import consistency

    pixels, expense = expense_of(run, device=device)
    return Compared(
        name=name,
        engine=engine,
        expense=expense,
        consistency=consistency(detail.pixels, pixels, bits=detail.bits),
        pixels=pixels,
    )


def _agreement(row: Compared) -> str:
    from relume.infer.consistency import in_words

    return in_words(row.consistency)


def _shown(rows: list[Compared], *, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    for heading in ("seconds", "memory", "consistency"):
        table.add_column(heading, justify="right")
    table.add_column("engine")
    for row in rows:
        cells = (f"{row.expense.seconds:.2f}", megabytes(row.expense.memory), _agreement(row))
        table.add_row(printable(row.name), *cells, row.engine)
    return table


def _write_table(
    path: Path, rows: list[Compared], *, photo: Path, picture: Picture, part: Crop, scale: int
) -> None:
    """Write the figures as the file's ending says; whole or not at all."""
    from relume.core.checkpoints import file_sha256
    from relume.core.files import write_text
    from relume.core.tables import csv_text, table_kind

    records = [row.figures for row in rows]
    if table_kind(path) == "csv":
        text = csv_text(records, list(records[0]))
    else:
        document = {
            "photo": photo.name,
            "photo_sha256": file_sha256(photo),
            "photo_size": picture.size,
            "crop": {"x": part.left, "y": part.top, "width": part.width, "height": part.height},
            "scale": scale,
            "models": records,
        }
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)
