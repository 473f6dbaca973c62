"""`relume upscale`: pictures in, bigger pictures out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relume.apps.console import megabytes, out, progress_bar, say_error, say_note
from relume.core.errors import OutputExistsError, PictureError, RelumeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from relume.infer.restorer import Restorer


@dataclass(frozen=True)
class Job:
    """One picture to enlarge."""

    source: Path
    target: Path


def upscale(
    inputs: Annotated[list[Path] | None, typer.Argument(help="Pictures or folders of pictures.")] = None,
    more_inputs: Annotated[
        list[Path] | None, typer.Option("--input", "-i", help="The same, as an option; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File for one picture, folder for several. Default: beside the input."
        ),
    ] = None,
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", help="How many times larger; default 4.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="Model: a name from `relume models`, or a weights file."),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(help="Added to each output's name; default _x4 and the like beside the input."),
    ] = None,
    format: Annotated[  # noqa: A002
        str | None, typer.Option(help="png, jpeg, tiff, webp or avif; default: the input's.")
    ] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="For jpeg, webp and avif.")] = None,
    tile: Annotated[
        int | None,
        typer.Option(min=0, help="Side of the tiles in input pixels; 0: the whole picture at once."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda …; default: a GPU where there is one.")
    ] = None,
    max_megapixels: Annotated[float, typer.Option(help="Refuse larger inputs, in megapixels.")] = 500.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
) -> None:
    """Enlarge pictures, keeping depth, transparency, profile and metadata."""
    from relume.apps.face import choose, load
    from relume.infer.restorer import DEFAULT_TILE

    given = [*(inputs or []), *(more_inputs or [])]
    if not given:
        raise RelumeError("no picture given; name a picture or a folder: relume upscale photo.jpg")
    restorer = load(choose(name, scale), device=device)
    if scale is not None and restorer.scale != scale:
        raise RelumeError(f"{restorer.name} enlarges by {restorer.scale}, not by {scale}; leave out -s")
    if suffix is None:
        suffix = "" if output is not None else f"_x{restorer.scale}"
    jobs, failures = plan(given, output, suffix=suffix, format=format)
    for failure in failures:
        say_error(failure)
    done = 0
    with progress_bar() as bar:
        for number, job in enumerate(jobs, 1):
            task = bar.add_task(f"{job.source.name} ({number} of {len(jobs)})", total=1.0)

            def advance(done: float, task: object = task) -> None:
                bar.update(task, completed=done)  # type: ignore[arg-type]

            try:
                _one(
                    restorer, job, tile=DEFAULT_TILE if tile is None else tile, quality=quality,
                    max_megapixels=max_megapixels, overwrite=overwrite, advance=advance,
                )  # fmt: skip
                done += 1
            except RelumeError as error:
                failures.append(str(error))
                say_error(str(error))
            bar.remove_task(task)
    if done + len(failures) > 1:
        out.print(f"{done} enlarged, {len(failures)} failed")
    if failures:
        raise typer.Exit(1)


def plan(
    given: list[Path],
    output: Path | None,
    *,
    suffix: str,
    format: str | None,  # noqa: A002
) -> tuple[list[Job], list[str]]:
    """Decide which file goes where, before any work.

    Returns:
        The jobs, and one line for each input that cannot be one.

    Raises:
        RelumeError: the whole request makes no sense (nothing found, a bad format, many into one file).
    """
    from relume.core.pictures import SUFFIXES

    if format is not None and format not in set(SUFFIXES.values()):
        raise PictureError(f"unknown format {format!r}; known: {', '.join(sorted(set(SUFFIXES.values())))}")
    failures: list[str] = []
    sources: list[tuple[Path, Path]] = []  # file, and the folder that it is named relative to
    for path in given:
        if not path.is_dir():
            sources.append((path, path.parent))
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            failures.append(f"{path}: holds no picture ({', '.join(sorted(SUFFIXES))})")
        sources += [(file, path) for file in found]
    into_folder = output is not None and (
        output.is_dir() or len(given) > 1 or given[0].is_dir() or output.suffix == ""
    )
    if output is not None and into_folder:
        _make_folder(output)
    jobs: list[Job] = []
    taken: dict[Path, Path] = {}
    for source, folder in sources:
        ending = source.suffix if format is None else _suffix_of(format)
        if output is None:
            target = folder / f"{source.stem}{suffix}{ending}"
        elif into_folder:
            target = output / f"{source.stem}{suffix}{ending}"
        else:
            target = output if format is None else output.with_suffix(_suffix_of(format))
        if target in taken:
            failures.append(
                f"{source}: would be written to {target}, as {taken[target]} is; rename one of them"
            )
            continue
        taken[target] = source
        jobs.append(Job(source, target))
    return jobs, failures


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RelumeError(f"{folder} is a file, but several pictures need a folder; choose another -o")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RelumeError(f"cannot make the folder {folder}: {error.strerror}; choose another -o") from error


def _suffix_of(format: str) -> str:  # noqa: A002
    return {"jpeg": ".jpg", "tiff": ".tif"}.get(format, f".{format}")


def _one(
    restorer: Restorer, job: Job, *, tile: int, quality: int | None, max_megapixels: float, overwrite: bool,
    advance: Callable[[float], None],
) -> None:  # fmt: skip
    """Enlarge one picture and say in one line what was done."""
    from relume.core.machine import peak_memory
    from relume.core.pictures import format_of, read, write

    format_of(job.target)
    if not overwrite and job.target.exists():
        raise OutputExistsError(f"{job.target}: exists already and was kept; use --overwrite or another name")
    started = time.perf_counter()
    picture = read(job.source, max_megapixels=max_megapixels)
    enlarged = restorer(picture, tile=tile, advance=advance)
    lost = write(enlarged, job.target, overwrite=overwrite, quality=quality)
    seconds = time.perf_counter() - started
    out.print(
        f"{job.source} → {job.target}  {picture.width}x{picture.height} → "
        f"{enlarged.width}x{enlarged.height}, {restorer.name}, {restorer.engine}, "
        f"{seconds:.1f} s, peak {megabytes(peak_memory())}",
        markup=False,
    )
    for note in (*picture.notes, *lost):
        say_note(f"{job.source.name}: {note}")
