"""`relume measure`: how good pictures are, with no original or beside one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from relume.apps.console import out, printable, progress_bar, say_error
from relume.core.errors import PictureError, RelumeError
from relume.core.tables import csv_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from relume.measures.niqe import NaturalModel
    from relume.measures.perceptual import PerceptualDistance
    from relume.measures.protocols import Protocol

_ALONE = ("niqe", "blur", "blockiness")
"""Measures that need no original."""

_GRID_FROM = 1.1
"""Strength from which the place of a grid of blocks is told; photos that were never compressed stay below."""


@dataclass
class Measured:
    """The figures of one picture; None is what was not asked for or cannot be had.

    Attributes:
        picture: its file.
        width: in pixels.
        height: in pixels.
        niqe: see `measures.niqe`; lower is better.
        blur: 0 (sharp) to 1, see `measures.blur`.
        blockiness: 1 (no grid) and more, see `measures.blockiness`.
        grid: columns and rows to the first border of the grid of blocks, "0,0"; where there is one.
        psnr: in dB, beside the original.
        ssim: beside the original.
        perceptual: distance to the original in an encoder's features; 0 is alike.
    """

    picture: str
    width: int
    height: int
    niqe: float | None = None
    blur: float | None = None
    blockiness: float | None = None
    grid: str | None = None
    psnr: float | None = None
    ssim: float | None = None
    perceptual: float | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON and CSV can hold it."""
        return {
            each.name: "inf" if (value := getattr(self, each.name)) == math.inf else value
            for each in fields(self)
        }


@dataclass
class _Work:
    """What to measure, and what became of it."""

    asked: tuple[str, ...]
    model: NaturalModel | None
    against: Path | None
    protocol: Protocol
    perceptual: PerceptualDistance | None
    rows: list[Measured] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def measure(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="The original, or a folder of originals with the pictures' names; adds PSNR and SSIM."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How to compare with an original: sr-y (as papers do, the default) or sr-rgb; no border is "
            "cut."
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--measure", "-m", help="Only this: niqe, blur or blockiness; may be repeated."),
    ] = None,
    niqe_model: Annotated[
        Path | None,
        typer.Option(
            help="NIQE's model: the authors' modelparameters.mat, or one of your own (.safetensors)."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="A VGG's weights, TorchScript or torch.export file: adds the perceptual distance."),
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layer", help="A layer of the encoder to compare; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON instead of a table.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print as CSV instead of a table.")] = False,
) -> None:
    """Measure pictures: naturalness (NIQE), blur and blockiness; PSNR and SSIM beside an original."""
    from relume.measures.niqe import load_natural_model

    if as_json and as_csv:
        raise RelumeError("--json and --csv cannot both be printed; leave one out")
    if against is not None and not against.exists():
        raise PictureError(f"there is no original {against}; check the path")
    asked = _asked(names)
    if niqe_model is not None and "niqe" not in asked:
        raise RelumeError("--niqe-model is for NIQE, which is not asked for; add -m niqe, or leave it out")
    work = _Work(
        asked=asked,
        model=load_natural_model(niqe_model) if niqe_model else None,
        against=against,
        protocol=_protocol(protocol, against),
        perceptual=_perceptual(encoder, tuple(layers or ()), against),
    )
    found = _found(pictures, work)
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=len(found))
        for path in found:
            bar.update(task, description=printable(path.name))
            _measure(path, work)
            bar.advance(task)
    if as_json:
        print(json.dumps([row.plain for row in work.rows], indent=1))
    elif as_csv:
        columns = [each.name for each in fields(Measured)]
        print(csv_text((row.plain for row in work.rows), columns), end="")
    elif work.rows:
        out.print(_table(work))
    for failure in work.failures:
        say_error(failure)
    if work.failures:
        raise typer.Exit(1)


def _asked(names: list[str] | None) -> tuple[str, ...]:
    from relume.core.errors import UnknownNameError

    for name in names or ():
        if name not in _ALONE:
            raise UnknownNameError("measure", name, _ALONE)
    return tuple(name for name in _ALONE if name in (names or _ALONE))


def _protocol(name: str | None, against: Path | None) -> Protocol:
    from relume.measures.protocols import SR_RGB, SR_Y
    from relume.measures.protocols import protocol as find

    if name is None:
        return SR_Y
    if against is None:
        raise RelumeError("--protocol tells how to compare with an original; name it with --against")
    found = find(name)
    if found.of_cubes:
        raise RelumeError(
            f"--protocol {name} measures cubes, and here are pictures; choose {SR_Y.name} or {SR_RGB.name}"
        )
    return found


def _perceptual(
    encoder: str | None, layers: tuple[str, ...], against: Path | None
) -> PerceptualDistance | None:
    if encoder is None:
        if layers:
            raise RelumeError("--layer names a layer of an encoder; give its file with --encoder")
        return None
    if against is None:
        raise RelumeError("--encoder compares with an original; name it with --against")
    from relume.measures.perceptual import PerceptualDistance
    from relume.nn.encoders.opening import open_encoder

    return PerceptualDistance(encoder=open_encoder(encoder, layers))


def _found(given: Sequence[Path], work: _Work) -> list[Path]:
    """The files meant; a folder stands for its pictures."""
    from relume.core.pictures import pictures_in

    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = pictures_in(path)
        except OSError as error:
            work.failures.append(
                f"{path}: the folder cannot be listed: {error.strerror}; check its permissions"
            )
            continue
        found += inside
        if not inside:
            work.failures.append(f"{path}: no pictures are in this folder; name another")
    return found


def _measure(path: Path, work: _Work) -> None:
    """Measure one picture; what fails is noted, and all the rest is given."""
    from relume.core.pictures import read
    from relume.measures.gray import gray_levels

    try:
        pixels = read(path).pixels
    except RelumeError as error:
        work.failures.append(str(error))
        return
    row = Measured(picture=str(path), width=pixels.shape[-1], height=pixels.shape[-2])
    work.rows.append(row)
    gray = gray_levels(pixels)
    for name in work.asked:
        try:
            _alone(name, gray, row, work.model)
        except PictureError as error:
            others = ", ".join(f"-m {each}" for each in work.asked if each != name)
            work.failures.append(f"{path}: {error}" + (f", or ask only for {others}" if others else ""))
    if work.against is None:
        return
    try:
        original = _original(path, work.against)
        _compare(pixels, read(original).pixels, row, work, names=(path, original))
    except RelumeError as error:
        work.failures.append(str(error))


def _alone(name: str, gray: Tensor, row: Measured, model: NaturalModel | None) -> None:
    from relume.measures.blockiness import blockiness
    from relume.measures.blur import blur
    from relume.measures.niqe import niqe

    if name == "niqe":
        row.niqe = niqe(gray, model)
    elif name == "blur":
        row.blur = blur(gray)
    else:
        found = blockiness(gray)
        row.blockiness = found.strength
        if found.strength >= _GRID_FROM:
            row.grid = "{},{}".format(*found.offset)


def _original(path: Path, against: Path) -> Path:
    """The original of a picture: the file named, or that of the same name in the folder named.

    Raises:
        PictureError: the folder has none, or several.
    """
    from relume.core.pictures import pictures_in

    if not against.is_dir():
        return against
    found = [original for original in pictures_in(against) if original.stem == path.stem]
    if len(found) != 1:
        many = "several originals are" if found else "no original is"
        raise PictureError(f"{path}: {many} called {path.stem} in {against}; name the original itself")
    return found[0]


def _compare(
    pixels: Tensor, original: Tensor, row: Measured, work: _Work, *, names: tuple[Path, Path]
) -> None:
    """Add PSNR, SSIM and the perceptual distance.

    Raises:
        RelumeError: the two cannot be compared.
    """
    if pixels.shape != original.shape:
        sizes = [
            f"{each.shape[-1]}x{each.shape[-2]} {'gray' if each.shape[0] == 1 else 'RGB'}"
            for each in (pixels, original)
        ]
        raise PictureError(
            f"{names[0]} is {sizes[0]} but its original {names[1]} is {sizes[1]}; "
            "PSNR and SSIM need two alike"
        )
    if work.perceptual is not None:
        row.perceptual = work.perceptual.measure(pixels, original)
    least = work.protocol.smallest_side(0)
    if min(pixels.shape[-2:]) < least:
        raise PictureError(
            f"{names[0]}: PSNR and SSIM need {least}x{least} pixels at least; take a larger one"
        )
    figures = work.protocol.measure(pixels, original, 0)
    row.psnr, row.ssim = figures["psnr"], figures["ssim"]


def _table(work: _Work) -> Table:
    title = (
        "niqe: lower is better; blur: 0 sharp, 1 blurred; blockiness: 1 no grid of 8x8 blocks, more visible"
    )
    if work.against is not None:
        title += f"; PSNR and SSIM under the protocol {work.protocol.name}, no border cut"
    shown = [("size", ""), *((name, ".3f") for name in work.asked)]
    if "blockiness" in work.asked:
        shown.append(("grid", ""))
    if work.against is not None:
        shown += [("psnr", ".3f"), ("ssim", ".4f")]
    if work.perceptual is not None:
        shown.append(("perceptual", ".4f"))
    table = Table(title=title, title_justify="left")
    table.add_column("picture", overflow="fold")
    for name, _ in shown:
        table.add_column({"psnr": "PSNR", "ssim": "SSIM"}.get(name, name), justify="right")
    for row in work.rows:
        cells = [
            f"{row.width}x{row.height}" if name == "size"
            else "-" if (value := getattr(row, name)) is None
            else format(value, how)
            for name, how in shown
        ]  # fmt: skip
        table.add_row(Text(printable(row.picture)), *cells)
    return table
