"""`relume evaluate`: a model's figures on benchmark sets, under a named protocol."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from relume.apps.console import err, out, printable, say, say_error, say_note
from relume.core.errors import RelumeError, unexpected

if TYPE_CHECKING:
    from relume.apps.evaluating import Way
    from relume.infer.restorer import Restorer
    from relume.insight.evaluate import Evaluation
    from relume.insight.leaderboard import Standing
    from relume.measures.protocols import Protocol


def evaluate(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Models from `relume models`, or weights files; several make one table."),
    ] = None,
    *,
    data: Annotated[
        list[str],
        typer.Option(
            "--data", help="Folder of a set or of several, or NAME=FOLDER, or a file; may be repeated."
        ),
    ],
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How to measure: sr-y (as papers do), sr-rgb, or cube for hyperspectral cubes. "
            "Default: sr-y, or cube for models of cubes."
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.99,
            help="Measure only the lowest share of each picture's rows: what a training with "
            "data.held_out left out.",
        ),
    ] = 0.0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the CSV and JSON files; made when missing.")
    ] = Path("evaluation"),
    make_low: Annotated[
        bool, typer.Option("--make-low", help="Make the small inputs even where they are given.")
    ] = False,
    degradation: Annotated[
        str | None,
        typer.Option(
            help="Make the inputs by this damage, as relume degrade does, even where some are given: bsrgan …"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the degradation; may be repeated.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**62, help="Of the degradation on a set's first picture; then one more."),
    ] = 0,
    tile: Annotated[int, typer.Option(min=0, help="Tile side in input pixels; 0: whole pictures.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …")] = None,
    strength: Annotated[
        float | None, typer.Option(help="0 (weak) to 1 (strong), for models that have that choice.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every model that comes with weights, in one table.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="With several models: also draw PSNR over time and size.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Also write the sets' figures into the weights file's header.")
    ] = False,
) -> None:
    """Measure models on pictures whose originals are known, beside bicubic."""
    from relume.apps.evaluating import Way, measured, set_and_folder, usual_protocol, with_weights
    from relume.apps.face import variant_named
    from relume.insight.evaluate import write_csv, write_json
    from relume.measures.protocols import protocol as find_protocol

    chosen = list(dict.fromkeys(map(variant_named, [*(with_weights() if every else ()), *(names or ())])))
    if not chosen:
        raise RelumeError("name a model or a weights file, or take --all")
    way = Way(
        data=tuple(map(set_and_folder, data)),
        protocol=find_protocol(protocol) if protocol else usual_protocol(chosen), make_low=make_low,
        degradation=degradation, settings=tuple(settings or ()), seed=seed, tile=tile, device=device,
        strength=strength, held_out=held_out,
    )  # fmt: skip
    if len(chosen) > 1 or every:
        if record:
            raise RelumeError("--record is for one model; leave it out, or name a single weights file")
        _check_outputs(output, None)
        _compare(chosen, way, output, plot=plot)
        return
    if plot:
        raise RelumeError("--plot draws several models; name more than one, or take --all")
    (name,) = chosen
    _check_outputs(output, Path(name) if record else None)
    restorer, result = measured(name, way)
    out.print(_table(result, restorer.name))
    stem = f"{Path(name).stem}-{way.protocol.name}{way.suffix}"
    output.mkdir(exist_ok=True)
    write_csv(result, output / f"{stem}.csv")
    write_json(result, output / f"{stem}.json", model=_facts(name, restorer, way))
    out.print(f"written: {output / stem}.csv and {output / stem}.json", markup=False)
    if record:
        _record(Path(name), result)
        out.print(f"recorded in {name}", markup=False)


def _compare(names: list[str], way: Way, output: Path, *, plot: bool) -> None:
    """Measure several models, what they cost too, and write one table; go on past those that fail."""
    from relume.apps.evaluating import conditions, standing
    from relume.insight import leaderboard

    standings, failures, trace = [], [], ""
    for name in names:
        try:
            standings.append(standing(name, way))
        except RelumeError as error:
            failures.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - one model never costs the others their rows
            failures.append(f"{name}: {unexpected(error)}")
            trace = trace or "".join(traceback.format_exception(error))
    if standings:
        stem = f"leaderboard-{way.protocol.name}{way.suffix}"
        output.mkdir(exist_ok=True)
        title = f"Leaderboard, protocol {way.protocol.name}"
        notes = leaderboard.facts(standings, conditions(way))
        leaderboard.write_csv(standings, output / f"{stem}.csv")
        leaderboard.write_markdown(standings, output / f"{stem}.md", heading=title, notes=notes)
        leaderboard.draw_table(standings, output / f"{stem}.png", heading=title)
        written = [f"{output / stem}.csv, .md and .png"]
        if plot:
            leaderboard.draw_plot(standings, output / f"{stem}-plot.png")
            written.append(f"{output / stem}-plot.png")
        out.print(_board(standings, title))
        say(f"written: {' and '.join(written)}")
    for reason in leaderboard.uncounted(standings):
        say_note(reason)
    if trace:
        err.print(Text(trace))
    for failure in failures:
        say_error(failure)
    if failures:
        raise typer.Exit(1)


def _board(standings: list[Standing], title: str) -> Table:
    """Return the leaderboard for a terminal: names are whole, and a set's figures stand below one another."""
    from relume.insight import leaderboard

    sets = [mean.set_name for mean in standings[0].means]
    metrics = [metric.upper() for metric in standings[0].means[0].scores]
    _, lines = leaderboard.cells(standings)
    table = Table(title=f"{title}; by set: {', '.join(metrics)}", title_justify="left")
    for heading in ("", "model", "para-\nmeters", "MACs", "s", "MiB"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for name in sets:
        table.add_column(printable(name), justify="right", overflow="fold", min_width=6)
    for scale, model, parameters, macs, seconds, memory, *figures in lines:
        by_set = (figures[first : first + len(metrics)] for first in range(0, len(figures), len(metrics)))
        table.add_row(
            scale, printable(model), parameters, macs, seconds, memory.removesuffix(" MiB"),
            *("\n".join(each) for each in by_set),
        )  # fmt: skip
    return table


def _check_outputs(output: Path, recorded: Path | None) -> None:
    """Refuse before the work what would fail after it."""
    import os

    from relume.core.errors import CheckpointError

    if recorded is not None and not recorded.is_file():
        raise CheckpointError(f"--record needs a weights file, not the name {str(recorded)!r}")
    place = output if output.exists() else output.parent
    if not place.is_dir():
        raise RelumeError(f"cannot make the folder {output}: {place} is no folder; choose another -o")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RelumeError(f"{place} may not be written; choose another -o or change its permissions")


def _table(result: Evaluation, name: str) -> Table:
    protocol, scale = result.protocol, result.scale
    table = Table(
        title=f"{name}, x{scale}, protocol {protocol.name}: {protocol.description}", title_justify="left"
    )
    table.add_column("set")
    for heading in ("pictures", *_headings(protocol), "gain", "s/picture"):
        table.add_column(heading, justify="right")
    for mean in result.means:
        ours, theirs = (
            [f"{value:.{4 if metric == 'ssim' else 3}f}" for metric, value in figures.items()]
            for figures in (mean.scores, mean.bicubic)
        )
        # Three figures twice would not fit a terminal's width, so bicubic's stand below them.
        below = ["\n".join(both) for both in zip(ours, theirs, strict=True)]
        cells = below if protocol.of_cubes else [*ours, *theirs]
        gain = f"{mean.scores['psnr'] - mean.bicubic['psnr']:+.3f}"
        table.add_row(mean.set_name, str(mean.pictures), *cells, gain, f"{mean.seconds:.2f}")
    return table


def _headings(protocol: Protocol) -> tuple[str, ...]:
    """Return the headings of the figures; of cubes, bicubic's stand below a model's."""
    if protocol.of_cubes:
        return tuple(f"{name}\nbicubic" for name in ("PSNR", "SSIM", "SAM"))
    return ("PSNR", "SSIM", "bicubic PSNR", "bicubic SSIM")


def _facts(name: str, restorer: Restorer, way: Way) -> dict[str, Any]:
    from relume.core.catalogue import variants
    from relume.core.checkpoints import file_sha256

    path = variants()[name].weights_path if name in variants() else Path(name)
    assert path is not None
    return {
        "name": restorer.name,
        "file": path.name,
        "file_sha256": file_sha256(path),
        "engine": str(restorer.engine),
        "strength": way.strength,
        "tile": way.tile,
        **way.inputs,
    }


def _record(path: Path, result: Evaluation) -> None:
    """Put the figures into the header, in place of earlier ones of the same set and protocol."""
    from relume.core.checkpoints import read_checkpoint, write_checkpoint

    header, state = read_checkpoint(path)
    fresh = {
        mean.set_name: {
            "set": mean.set_name,
            "protocol": result.protocol.name,
            "pictures": mean.pictures,
            **{metric: round(value, 4) for metric, value in mean.scores.items()},
            **{f"bicubic_{metric}": round(value, 4) for metric, value in mean.bicubic.items()},
        }
        for mean in result.means
    }
    kept = [
        entry for entry in header.measured
        if entry["set"] not in fresh or entry["protocol"] != result.protocol.name
    ]  # fmt: skip
    write_checkpoint(path, state, replace(header, measured=(*kept, *fresh.values())))
