"""`relume evaluate`: a model's figures on benchmark sets, under a named protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from relume.apps.console import out, progress_bar

if TYPE_CHECKING:
    from relume.data.benchmarks import BenchmarkPairs
    from relume.infer.restorer import Restorer
    from relume.insight.evaluate import Evaluation, Row


def evaluate(
    name: Annotated[str, typer.Argument(help="A model from `relume models`, or a weights file.")],
    data: Annotated[
        list[str],
        typer.Option("--data", help="Folder of a set or of several, or NAME=FOLDER; may be repeated."),
    ],
    protocol: Annotated[str, typer.Option(help="How to measure: sr-y (as papers do) or sr-rgb.")] = "sr-y",
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
    record: Annotated[
        bool, typer.Option("--record", help="Also write the sets' figures into the weights file's header.")
    ] = False,
) -> None:
    """Measure a model on pictures whose originals are known, beside bicubic."""
    from relume.apps.face import load
    from relume.apps.settings import parse_degradation
    from relume.core.errors import ConfigError
    from relume.data.benchmarks import Damage, find_pairs
    from relume.insight.evaluate import evaluate as measure
    from relume.insight.evaluate import write_csv, write_json
    from relume.measures.protocols import protocol as find_protocol

    chosen = find_protocol(protocol)
    if settings and degradation is None:
        raise ConfigError("--set tells how to damage pictures; name the damage with --degradation")
    damaging = parse_degradation(degradation, settings or []) if degradation is not None else None
    restorer = load(name, device=device, strength=strength)
    damage = Damage(function=damaging.build(restorer.scale), seed=seed) if damaging else None
    told = [f"{degradation}, seed {seed}", *(settings or [])] if damaging else []
    if strength is not None:
        told.append(f"strength {strength:g}")
    found = [
        find_pairs(folder, scale=restorer.scale, always_make_low=make_low, name=called, damage=damage).told(
            ", ".join(told)
        )
        for called, folder in map(_set_and_folder, data)
    ]
    _refuse_same_names(found)
    stem = f"{Path(name).stem}-{protocol}"
    if strength is not None:
        stem += f"-strength-{strength:g}"
    if degradation is not None:
        stem += f"-{degradation}-{seed}"
    _check_outputs(output, Path(name) if record else None)
    total = sum(len(pairs) for pairs in found)
    with progress_bar() as bar:
        task = bar.add_task(f"{restorer.name}, {total} pictures", total=total)

        def advance(row: Row, done: int, of: int | None) -> None:  # noqa: ARG001
            bar.update(task, completed=done, description=f"{row.set_name}/{row.name}")

        result = measure(
            lambda low: restorer.run(low, tile=tile),
            (pair for pairs in found for pair in pairs),
            scale=restorer.scale, protocol=chosen, progress=advance,
        )  # fmt: skip
    out.print(_table(result, restorer.name))
    facts = _facts(name, restorer, strength, tile)
    if damaging:
        facts["inputs"] = {**damaging.model_dump(mode="json"), "seed": seed}
    output.mkdir(exist_ok=True)
    write_csv(result, output / f"{stem}.csv")
    write_json(result, output / f"{stem}.json", model=facts)
    out.print(f"written: {output / stem}.csv and {output / stem}.json", markup=False)
    if record:
        _record(Path(name), result)
        out.print(f"recorded in {name}", markup=False)


def _set_and_folder(text: str) -> tuple[str | None, Path]:
    """Split NAME=FOLDER; a text that is a folder itself is one, whatever it holds."""
    called, equals, folder = text.partition("=")
    if not equals or not called or "/" in called or Path(text).is_dir():
        return None, Path(text)
    return called, Path(folder)


def _refuse_same_names(found: list[BenchmarkPairs]) -> None:
    """Refuse two folders of the same name, whose figures would become one mean."""
    from relume.core.errors import DataError

    folders: dict[str, Path] = {}
    for pairs in found:
        for folder, called in {(files.high_path.parent, files.set_name) for files in pairs.files}:
            if folders.setdefault(called, folder) != folder:
                raise DataError(
                    f"{folders[called]} and {folder} would both be the set {called!r}; "
                    f"call one otherwise: --data NAME=FOLDER"
                )


def _check_outputs(output: Path, recorded: Path | None) -> None:
    """Refuse before the work what would fail after it."""
    import os

    from relume.core.errors import CheckpointError, RelumeError

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
    for heading in ("pictures", "PSNR", "SSIM", "bicubic PSNR", "bicubic SSIM", "gain", "s/picture"):
        table.add_column(heading, justify="right")
    for mean in result.means:
        table.add_row(
            mean.set_name,
            str(mean.pictures),
            f"{mean.scores['psnr']:.3f}",
            f"{mean.scores['ssim']:.4f}",
            f"{mean.bicubic['psnr']:.3f}",
            f"{mean.bicubic['ssim']:.4f}",
            f"{mean.scores['psnr'] - mean.bicubic['psnr']:+.3f}",
            f"{mean.seconds:.2f}",
        )
    return table


def _facts(name: str, restorer: Restorer, strength: float | None, tile: int) -> dict[str, Any]:
    from relume.core.catalogue import variants
    from relume.core.checkpoints import file_sha256

    path = variants()[name].weights_path if name in variants() else Path(name)
    assert path is not None
    return {
        "name": restorer.name,
        "file": path.name,
        "file_sha256": file_sha256(path),
        "engine": str(restorer.engine),
        "strength": strength,
        "tile": tile,
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
