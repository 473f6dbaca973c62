"""`relume engines`: which engines this machine has, and how quick each is with a model."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from relume.apps.console import out, progress_bar, say


def engines(
    name: Annotated[
        str, typer.Argument(help="The model to measure with, from `relume models`, or a weights file.")
    ] = "cfsr-x4",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, vulkan …")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    threads: Annotated[int | None, typer.Option(min=1, help="On the CPU; default: all.")] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also those that must be compiled first, which takes minutes."),
    ] = False,
) -> None:
    """Measure a model on every engine that can run it here, and compare each with PyTorch."""
    import torch

    from relume.core.errors import UnknownNameError
    from relume.infer.choosing import default_device, remember
    from relume.infer.engines import engines as all_engines
    from relume.infer.engines.base import TOLERANCES, Place
    from relume.infer.measuring import Measured, measure
    from relume.models import zoo

    if precision not in TOLERANCES:
        raise UnknownNameError("precision", precision, TOLERANCES)
    network, _ = zoo.load(name)
    place = Place(
        device=device or default_device(), precision=precision, threads=threads or torch.get_num_threads()
    )
    rows: list[Measured] = []
    with progress_bar() as bar:
        task = bar.add_task(name, total=len(all_engines()))
        for each, kind in all_engines().items():
            bar.update(task, description=each)
            if kind.slow_to_make and not everything:
                rows.append(Measured(engine=each, reason="it must be compiled first; measure it with --all"))
            else:
                rows += measure(network, [each], place)
            bar.advance(task)
    remember(network, place, rows)
    timed = [row.seconds for row in rows if row.seconds is not None]
    table = Table()
    for heading in ("engine", "ms for 96x96", "of the quickest", "differs from PyTorch by"):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    table.add_column("note")
    for row in sorted(rows, key=lambda row: row.seconds or float("inf")):
        cells = ("", "", "")
        if row.seconds is not None and row.difference is not None:
            cells = (f"{1000 * row.seconds:.1f}", f"{row.seconds / min(timed):.2f}", f"{row.difference:.1e}")
        table.add_row(row.engine, *cells, row.reason or "")
    out.print(table)
    say(f"{name} on {place.device} in {place.precision}, {place.threads} threads")
