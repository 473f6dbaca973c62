"""`relume check-tiling`: does a model look no farther than it says, and do its tiles give the whole?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from relume.apps.console import out, say, say_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from relume.core.contract import Contract
    from relume.infer.check_tiling import Reach
    from relume.infer.operators import Operator

_SEEN = 32
"""How far is measured where the reach is unbounded, in input pixels."""


def check_tiling(
    name: Annotated[str, typer.Argument(help="A model from `relume models`, or a weights file.")],
    tile: Annotated[int, typer.Option(min=3, help="Longest side of the tiles in input pixels.")] = 32,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="With the eightfold self-ensemble.")] = False,
    engine: Annotated[str | None, typer.Option(help="One from `relume engines`; default auto.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …")] = None,
) -> None:
    """Measure a model's reach against its halo, and tiles against the whole; exits with 1 on a fault."""
    from relume.apps.face import load, variant_named
    from relume.infer.check_tiling import TOLERANCE, measure_reach
    from relume.infer.check_tiling import check_tiling as check
    from relume.models import zoo

    restorer = load(name, engine=engine, device=device)
    network, _ = zoo.load(variant_named(name))
    network.double().eval().requires_grad_(False)
    exact = _stack(_Plain(network, network.contract), ensemble=ensemble)
    halo = exact.halo
    seen = _SEEN if halo is None else halo
    # Two pixels past the halo: a reach that ends there must be seen to end.
    reach = measure_reach(exact, channels=exact.channels, scale=exact.scale, side=2 * (seen + 2) + 1)
    operator = _stack(_Plain(restorer.run, restorer.contract), ensemble=ensemble)
    differences = check(operator, tile=tile, overlap=tile // 4)

    say(f"{restorer.name}, {restorer.engine}: halo {'unbounded' if halo is None else halo}, {_told(reach)}")
    table = Table(title="tiled against whole" if halo is not None else "blended tiles against whole")
    for heading in ("input", "tiles up to", "largest difference", "levels of 8 bits"):
        table.add_column(heading, justify="right")
    for each in differences:
        levels = f"{255 * each.largest:.4f}"
        table.add_row(f"{each.width}x{each.height}", str(each.tile), f"{each.largest:.1e}", levels)
    out.print(table)
    if halo is None:
        return
    faults = []
    if reach.farthest is None or reach.farthest > halo:
        faults.append(f"it looks farther than its halo of {halo}")
    if not all(each.largest <= TOLERANCE for each in differences):
        faults.append(f"tiles differ from the whole by more than {TOLERANCE:g}")
    if faults:
        say_error(f"{restorer.name}: {' and '.join(faults)}; correct the halo in the model's contract")
        raise typer.Exit(1)
    say("tiles give the pixels of the whole")


@dataclass(frozen=True)
class _Plain:
    """A function that runs a model on whatever it is given, whole, with the model's contract."""

    run: Callable[[Tensor], Tensor]
    contract: Contract

    @property
    def scale(self) -> int:
        return self.contract.scale

    @property
    def channels(self) -> int:
        return self.contract.channels

    @property
    def halo(self) -> int | None:
        return self.contract.halo

    def __call__(self, low: Tensor) -> Tensor:
        return self.run(low)


def _stack(operator: Operator, *, ensemble: bool) -> Operator:
    from relume.infer.ensemble import Ensemble

    return Ensemble(operator) if ensemble else operator


def _told(reach: Reach) -> str:
    """The measured reach in words."""
    if reach.farthest is None:
        return f"measured: more than {reach.side // 2 - 1}"
    return f"measured: {reach.farthest}, of which {reach.visible} matter to a picture of 16 bits"
