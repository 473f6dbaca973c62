"""`relume upscale`: pictures in, bigger pictures out."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relume.apps.console import megabytes, printable, progress_bar, say, say_error, say_note
from relume.core.errors import OutputExistsError, PictureError, RelumeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from relume.infer.restorer import Restorer


@dataclass(frozen=True)
class Job:
    """One picture to enlarge."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Plan:
    """What a request comes to, before any work.

    Attributes:
        jobs: one for each picture; no two write to one file, and none writes to any input.
        failures: one line for each input that cannot be a job.
        folder: what must be made first, where it is missing.
    """

    jobs: list[Job]
    failures: list[str]
    folder: Path | None


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
        str | None,
        typer.Option(
            help="png, jpeg, tiff, webp or avif; default: as the output is named, else the input's."
        ),
    ] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="For jpeg, webp and avif.")] = None,
    tile: Annotated[
        int | None,
        typer.Option(min=0, help="Longest side of the tiles in input pixels; 0: the whole picture at once."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda …; default: a GPU where there is one.")
    ] = None,
    max_megapixels: Annotated[
        float, typer.Option(min=0, help="Refuse larger inputs, in megapixels.")
    ] = 500.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
) -> None:
    """Enlarge pictures, keeping depth, transparency, profile and metadata."""
    from relume.apps.face import DEFAULT_SYSTEM, load

    given = [*(inputs or []), *(more_inputs or [])]
    if not given:
        raise RelumeError("no picture given; name a picture or a folder: relume upscale photo.jpg")
    restorer = load(name or DEFAULT_SYSTEM, scale=scale, device=device)
    if scale is not None and restorer.scale != scale:
        raise RelumeError(f"{restorer.name} enlarges by {restorer.scale}, not by {scale}; leave out -s")
    if suffix is None:
        suffix = "" if output is not None else f"_x{restorer.scale}"
    todo = plan(given, output, suffix=suffix, format=format)
    jobs, failures = todo.jobs, list(todo.failures)
    for failure in failures:
        say_error(failure)
    done = 0
    with _made(todo.folder if jobs else None), progress_bar() as bar:
        for number, job in enumerate(jobs, 1):
            task = bar.add_task(f"{printable(job.source.name)} ({number} of {len(jobs)})", total=1.0)

            def advance(done: float, task: object = task) -> None:
                bar.update(task, completed=done)  # type: ignore[arg-type]

            try:
                _one(
                    restorer, job, tile=tile, quality=quality,
                    max_megapixels=max_megapixels, overwrite=overwrite, advance=advance,
                )  # fmt: skip
                done += 1
            except RelumeError as error:
                failures.append(str(error))
                say_error(str(error))
            bar.remove_task(task)
    if done + len(failures) > 1:
        say(f"{done} enlarged, {len(failures)} failed")
    if failures:
        raise typer.Exit(1)


def plan(
    given: list[Path],
    output: Path | None,
    *,
    suffix: str,
    format: str | None,  # noqa: A002
) -> Plan:
    """Decide which file goes where; only looks, changes nothing.

    Args:
        given: pictures and folders of pictures.
        output: a file for one picture, a folder for several, None for beside the input.
        suffix: added to the stem of each output, unless `output` names the file.
        format: of the outputs; None takes each input's.

    Raises:
        RelumeError: the whole request makes no sense (a bad format or suffix, many into one file).
    """
    from relume.core.pictures import SUFFIXES, format_of, pictures_in

    ending = None if format is None else _ending(format)
    if Path(f"a{suffix}").name != f"a{suffix}":
        raise RelumeError(f"--suffix {suffix!r} holds a folder; it is a part of a name, use -o for folders")
    into_folder = output is not None and _is_folder(output, given)
    if output is not None and not into_folder and ending and format_of(output) != SUFFIXES[ending]:
        raise RelumeError(
            f"{output} is not named as the format {format} is; leave out one of -o and --format"
        )

    def target_of(source: Path, folder: Path) -> Path:
        if output is not None and not into_folder:
            return output
        # What has no known ending is judged by its content when read; PNG keeps all that it may hold.
        kept = source.suffix if source.suffix.lower() in SUFFIXES else ".png"
        return (output or folder) / f"{source.stem}{suffix}{ending or kept}"

    failures: list[str] = []
    wishes: list[Job] = []
    for path in given:
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir fails on a name too long
            wishes.append(Job(path, target_of(path, path.parent)))
            continue
        try:
            found = [Job(file, target_of(file, path)) for file in pictures_in(path)]
        except OSError as error:
            failures.append(f"{path}: cannot be listed: {error.strerror}; check its permissions")
            continue
        if not found:
            failures.append(f"{path}: holds no picture ({', '.join(sorted(SUFFIXES))})")
        # A second run over a folder must not enlarge what the first one made.
        made = {_real(job.target) for job in found} if suffix else set()
        wishes += [job for job in found if _real(job.source) not in made]
    jobs, clashes = _without_clashes(wishes)
    return Plan(jobs, [*failures, *clashes], output if into_folder else None)


def _without_clashes(wishes: list[Job]) -> tuple[list[Job], list[str]]:
    """Leave out what would cost an input or another output, with a line on each; and what is named twice."""
    inputs = {_real(job.source) for job in wishes}
    taken: dict[str, Job] = {}
    failures = []
    for job in wishes:
        place = _real(job.target)
        earlier = taken.get(place)
        if place in inputs:
            failures.append(
                f"{job.source}: would be written to {job.target}, which is an input and would be lost; "
                "choose another -o or --suffix"
            )
        elif earlier is None:
            taken[place] = job
        elif _real(earlier.source) != _real(job.source):
            failures.append(
                f"{job.source}: would be written to {job.target}, as {earlier.source} is; rename one of them"
            )
    return list(taken.values()), failures


def _is_folder(output: Path, given: list[Path]) -> bool:
    """Tell whether -o means a folder.

    Raises:
        RelumeError: it cannot be one, but must; or it could not be made.
    """
    from relume.core.pictures import SUFFIXES

    if os.path.isdir(output):  # noqa: PTH112
        return True
    several = len(given) > 1 or os.path.isdir(given[0])  # noqa: PTH112
    exists = os.path.lexists(output)
    if several and (exists or output.suffix.lower() in SUFFIXES):
        what = "is a file" if exists else "names a file"
        raise RelumeError(f"{output} {what}, but several pictures need a folder; choose another -o")
    if not several and (exists or output.suffix):
        return False
    if not os.path.isdir(output.parent):  # noqa: PTH112
        raise RelumeError(
            f"cannot make the folder {output}: there is no folder {output.parent}; make it first"
        )
    return True


def _real(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _ending(format: str) -> str:  # noqa: A002
    from relume.core.pictures import SUFFIXES

    kind = SUFFIXES.get(f".{format.lower()}")
    if kind is None:
        raise PictureError(f"unknown format {format!r}; known: {', '.join(sorted(set(SUFFIXES.values())))}")
    return {"jpeg": ".jpg", "tiff": ".tif"}.get(kind, f".{kind}")


@contextlib.contextmanager
def _made(folder: Path | None) -> Iterator[None]:
    """Make a folder for the time of the work, and take it away again where nothing came into it."""
    if folder is None or os.path.isdir(folder):  # noqa: PTH112
        yield
        return
    try:
        folder.mkdir()
    except OSError as error:
        raise RelumeError(f"cannot make the folder {folder}: {error.strerror}; choose another -o") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _one(
    restorer: Restorer, job: Job, *, tile: int | None, quality: int | None, max_megapixels: float,
    overwrite: bool,
    advance: Callable[[float], None],
) -> None:  # fmt: skip
    """Enlarge one picture and say in one line what was done."""
    from relume.core.machine import peak_memory
    from relume.core.pictures import format_of, read, write

    format_of(job.target)
    if not overwrite and os.path.lexists(job.target):
        raise OutputExistsError(f"{job.target}: exists already and was kept; use --overwrite or another name")
    started = time.perf_counter()
    picture = read(job.source, max_megapixels=max_megapixels)
    try:
        enlarged = restorer(picture, tile=tile, advance=advance)
        lost = write(enlarged, job.target, overwrite=overwrite, quality=quality)
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        raise RelumeError(
            f"{job.source}: memory does not suffice to enlarge {picture.size} by {restorer.scale}; "
            "choose a smaller --tile or --scale, or cut the picture"
        ) from error
    seconds = time.perf_counter() - started
    say(
        f"{job.source} → {job.target}  {picture.size} → {enlarged.size}, {restorer.name}, {restorer.engine}, "
        f"{seconds:.1f} s, peak {megabytes(peak_memory())}"
    )
    for note in (*picture.notes, *lost):
        say_note(f"{job.source.name}: {note}")


def _is_memory(error: Exception) -> bool:
    """Tell whether memory ran out; PyTorch says so on the CPU by a plain RuntimeError."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "not enough memory", "out of memory")
    )
