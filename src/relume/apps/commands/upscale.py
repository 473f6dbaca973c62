"""`relume upscale`: pictures in, bigger pictures out; and cubes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relume.core.errors import RelumeError, UnknownNameError

_FILES = "Input and output"
_SIZE = "Size (one way of saying it)"
_QUALITY = "Quality"
_SPEED = "Speed and memory"
_BATCHES = "Batches"


def upscale(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Pictures, folders of pictures, and quoted patterns like 'a/**/*.jpg'. For models of cubes: "
            "hyperspectral cubes, .mat or .npy."
        ),
    ] = None,
    more_inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input", "-i", help="The same, as an option; may be repeated.", rich_help_panel=_FILES
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File for one picture, folder for several. Default: beside the input.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            help="Added to each output's name; default _x4 and the like beside the input, none with -o.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    format: Annotated[  # noqa: A002
        str | None,
        typer.Option(
            help="png, jpeg, tiff, webp or avif, or mat or npy for cubes; default: as the output is named, "
            "else the input's.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist.", rich_help_panel=_FILES)
    ] = False,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale", "-s", help="How many times larger, like 2 or 2.5; default 4.", rich_help_panel=_SIZE
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="In pixels; the height follows unless it is given too.", rich_help_panel=_SIZE),
    ] = None,
    height: Annotated[int | None, typer.Option(help="Likewise.", rich_help_panel=_SIZE)] = None,
    megapixels: Annotated[
        float | None, typer.Option(help="Width times height in millions.", rich_help_panel=_SIZE)
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT", help="The largest that fits, like 1920x1080.", rich_help_panel=_SIZE
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", "-n", help="Model: a name from `relume models`, or a weights file.",
            rich_help_panel=_QUALITY,
        ),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Average eight flips and turns: a little better, eight times the time.",
            rich_help_panel=_QUALITY,
        ),
    ] = False,
    faithful: Annotated[
        bool,
        typer.Option(
            "--faithful", help="Correct the output until it gives the input back when shrunk.",
            rich_help_panel=_QUALITY,
        ),
    ] = False,
    effort: Annotated[
        float | None,
        typer.Option(
            help="0 (quick) to 1 (best), for models that have that choice.", rich_help_panel=_QUALITY
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="0 (weak) to 1 (strong), for models that have that choice.", rich_help_panel=_QUALITY
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="For jpeg, webp and avif.", rich_help_panel=_QUALITY),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Of the arithmetic: fp32 (default), bf16 or fp16.", rich_help_panel=_SPEED),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="One from `relume engines`; default auto: the quickest here.", rich_help_panel=_SPEED
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda …; default: a GPU where there is one.", rich_help_panel=_SPEED),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="On the CPU; default: all.", rich_help_panel=_SPEED)
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="The most that the program may hold, like 2GiB; default: by what is free.",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=0, rich_help_panel=_SPEED,
            help="Longest side of the tiles in input pixels, 0 for the whole picture; default: by memory.",
        ),
    ] = None,
    max_megapixels: Annotated[
        float, typer.Option(min=0, help="Refuse larger inputs, in megapixels.", rich_help_panel=_SPEED)
    ] = 500.0,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive", "-r", help="Also folders in folders; -o gets the same tree.",
            rich_help_panel=_BATCHES,
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on with pictures as they come into the folders, until Ctrl-C.",
            rich_help_panel=_BATCHES,
        ),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST", help="Go on with a batch, as it was asked for; instead of naming pictures.",
            rich_help_panel=_BATCHES,
        ),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST", rich_help_panel=_BATCHES,
            help="Where the batch's books are kept; default: .relume-job.sqlite with the outputs.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a table of all pictures, .csv or .json.", rich_help_panel=_BATCHES),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", rich_help_panel=_BATCHES,
            help="Work on a Ray cluster: host:port or auto; local starts one on this machine.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Enlarge pictures, keeping depth, transparency, profile and metadata.

    A batch can be stopped or killed at any moment; the same command does what is left.
    """
    given = [*(inputs or []), *(more_inputs or [])]
    if not given and resume is None:
        raise RelumeError("no picture given; name a picture or a folder: relume upscale photo.jpg")
    asked = {
        "--output": output, "--suffix": suffix, "--format": format, "--scale": scale, "--width": width,
        "--height": height, "--megapixels": megapixels, "--fit": fit, "--name": name, "--effort": effort,
        "--strength": strength, "--quality": quality, "--precision": precision,
        "--ensemble": ensemble or None, "--faithful": faithful or None, "--recursive": recursive or None,
        "--job": job, "--watch": watch or None,
    }  # fmt: skip
    wished = [option for option, value in asked.items() if value is not None]
    if resume is not None and (given or wished):
        raise RelumeError(
            "--resume goes on with what was asked for then; leave out "
            f"{wished[0] if wished else given[0]}, or begin a new batch without --resume"
        )

    from relume.apps.batches import Request, go_on, run
    from relume.apps.settings import parse_bytes
    from relume.apps.upscale_settings import UpscaleSettings
    from relume.infer.engines.base import TOLERANCES
    from relume.infer.targets import box

    if precision is not None and precision not in TOLERANCES:
        raise UnknownNameError("precision", precision, TOLERANCES)
    settings = UpscaleSettings.parse(
        {
            "model": name, "scale": scale, "width": width, "height": height, "megapixels": megapixels,
            "fit": None if fit is None else box(fit), "ensemble": ensemble, "faithful": faithful,
            "effort": effort, "strength": strength, "precision": precision or "fp32", "quality": quality,
            "engine": engine, "device": device, "threads": threads, "tile": tile,
            "memory": None if memory is None else parse_bytes(memory), "max_megapixels": max_megapixels,
        },
        where="options",
    )  # fmt: skip
    settings.target()
    request = Request(
        settings=settings, given=tuple(given), output=output, suffix=suffix, format=format,
        overwrite=overwrite, recursive=recursive, watch=watch, job=job, report=report, ray=ray,
    )  # fmt: skip
    status = run(request) if resume is None else go_on(resume, request)
    if status:
        raise typer.Exit(status)
