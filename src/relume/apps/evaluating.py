"""Measuring models on benchmark sets as asked for on the command line; `relume evaluate` is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relume.apps.console import progress_bar
from relume.apps.face import load
from relume.apps.settings import parse_degradation
from relume.core.catalogue import variants
from relume.core.errors import ConfigError, DataError, RelumeError
from relume.core.figures import counted
from relume.core.machine import processor_name, versions
from relume.data.benchmarks import BenchmarkPairs, Damage, find_pairs
from relume.data.degradations.base import DegradationConfig
from relume.infer.restorer import Restorer
from relume.insight.evaluate import Evaluation, Row, evaluate
from relume.insight.leaderboard import Cost, Standing, UncountedError, costed, count_macs, time_run
from relume.measures.protocols import CUBE, SR_Y, Protocol
from relume.models import zoo
from relume.nn.network import count_parameters


@dataclass(frozen=True, kw_only=True)
class Way:
    """On what and how models are measured.

    Attributes:
        data: sets, each with the name that it is to have, None for its folder's.
        protocol: how figures are measured.
        make_low: whether inputs are made even where they are given.
        degradation: name of the damage that makes them, None for bicubic.
        settings: NAME=VALUE of the degradation.
        seed: of the degradation on a set's first picture.
        tile: side in input pixels; 0: whole pictures.
        device: where models run, None for the default.
        strength: of models that have that choice.
        held_out: share of each picture's rows, the lowest, that alone count; 0 for all.

    Raises:
        ConfigError: settings that nothing takes.
        RelumeError: no such degradation.
    """

    data: tuple[tuple[str | None, Path], ...]
    protocol: Protocol
    make_low: bool = False
    degradation: str | None = None
    settings: tuple[str, ...] = ()
    seed: int = 0
    tile: int = 0
    device: str | None = None
    strength: float | None = None
    held_out: float = 0.0

    def __post_init__(self) -> None:
        if self.settings and self.degradation is None:
            raise ConfigError("--set tells how to damage pictures; name the damage with --degradation")
        self.damage_config()

    def damage_config(self) -> DegradationConfig | None:
        """Return the degradation as set, None for bicubic."""
        return None if self.degradation is None else parse_degradation(self.degradation, self.settings)

    @property
    def inputs(self) -> dict[str, Any]:
        """What files tell of the damage and of the part that counts; nothing where all is as usual."""
        config = self.damage_config()
        told = {"inputs": {**config.model_dump(mode="json"), "seed": self.seed}} if config else {}
        return told | ({"held_out": self.held_out} if self.held_out else {})

    @property
    def suffix(self) -> str:
        """What files' names have behind the protocol's."""
        strength = "" if self.strength is None else f"-strength-{self.strength:g}"
        part = f"-held-out-{self.held_out:g}" if self.held_out else ""
        return strength + part + ("" if self.degradation is None else f"-{self.degradation}-{self.seed}")

    def pairs(self, scale: int, *, cubes: bool = False) -> list[BenchmarkPairs]:
        """Return the sets of pictures or cubes for one scale, their names followed by what is not as usual.

        Raises:
            DataError: a set cannot be used, or two have one name.
            ConfigError: the degradation does not fit the scale.
        """
        config = self.damage_config()
        damage = Damage(function=config.build(scale), seed=self.seed) if config else None
        told = [f"{self.degradation}, seed {self.seed}", *self.settings] if config else []
        if self.strength is not None:
            told.append(f"strength {self.strength:g}")
        if self.held_out:
            told.append(f"held out {self.held_out:g}")
        found = [
            find_pairs(
                folder, scale=scale, always_make_low=self.make_low, name=called, damage=damage, cubes=cubes,
                held_out=self.held_out,
            ).told(", ".join(told))
            for called, folder in self.data
        ]  # fmt: skip
        _refuse_same_names(found)
        return found


def measured(name: str, way: Way) -> tuple[Restorer, Evaluation]:
    """Load a model and measure it, with a bar.

    Args:
        name: a variant or a weights file.
        way: on what and how.

    Raises:
        RelumeError: it cannot be loaded or measured so.
    """
    restorer = load(name, device=way.device, strength=way.strength)
    contract = restorer.contract
    if way.protocol.of_cubes != contract.of_cubes:
        kinds = ("cubes", "pictures") if contract.of_cubes else ("pictures", "cubes")
        raise ConfigError(
            f"{name} takes {kinds[0]}, and protocol {way.protocol.name} measures {kinds[1]}; "
            "leave --protocol out"
        )
    found = way.pairs(restorer.scale, cubes=contract.of_cubes)
    total = sum(len(pairs) for pairs in found)
    with progress_bar() as bar:
        task = bar.add_task(f"{restorer.name}, {counted(total, 'picture')}", total=total)

        def advance(row: Row, done: int, of: int | None) -> None:  # noqa: ARG001
            bar.update(task, completed=done, description=f"{row.set_name}/{row.name}")

        result = evaluate(
            lambda low: restorer.run(low, tile=way.tile),
            (pair.fitting(contract) for pairs in found for pair in pairs),
            scale=restorer.scale, protocol=way.protocol, progress=advance,
        )  # fmt: skip
    return restorer, result


def usual_protocol(names: Sequence[str]) -> Protocol:
    """Return how models are measured unless said otherwise: as the first of them that can be loaded is.

    Args:
        names: variants or weights files, at least one.

    Raises:
        RelumeError: none can be; what is wrong with the first is told.
    """
    first: RelumeError | None = None
    for name in names:
        try:
            return CUBE if zoo.load(name)[0].contract.of_cubes else SR_Y
        except RelumeError as error:
            first = first or error
    assert first is not None
    raise first


def standing(name: str, way: Way) -> Standing:
    """Measure a model's figures, and what an output of 1280 × 720 pixels costs.

    That output is of the first set's first picture, continued mirrored: some spend more on one than another.

    Args:
        name: a variant or a weights file.
        way: on what and how.

    Raises:
        RelumeError: it cannot be loaded or measured so.
    """
    restorer, result = measured(name, way)
    network, _ = zoo.load(name)
    parameters, contract = count_parameters(network), network.contract
    # Of the network alone, as papers count it: what the restorer does about a picture's colours is left out.
    engine, scale = restorer.engine, restorer.scale
    first = way.pairs(scale, cubes=contract.of_cubes)[0][0]
    low = costed(first.low, channels=contract.channels, scale=scale)
    expense = time_run(engine, low, device=engine.device)
    try:
        cost = Cost(macs=count_macs(network, low), expense=expense)
    except UncountedError as error:
        cost = Cost(macs=None, expense=expense, uncounted=str(error))
    called = restorer.name if name in variants() else Path(name).stem
    return Standing(name=called, scale=scale, parameters=parameters, cost=cost, means=result.means)


def with_weights() -> list[str]:
    """Return the names of all variants that come with weights and enlarge."""
    return [
        each.name
        for each in variants().values()
        if each.scale > 1 and each.weights_path and each.weights_path.is_file()
    ]


def conditions(way: Way) -> dict[str, str]:
    """Return what figures depend on, for a table's notes."""
    found = {
        "figures": way.protocol.description,
        "processor": processor_name(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
    if way.degradation is not None:
        found["inputs"] = ", ".join([f"{way.degradation} from seed {way.seed} on", *way.settings])
    return found


def set_and_folder(text: str) -> tuple[str | None, Path]:
    """Split NAME=FOLDER; a text that is a folder itself is one, whatever it holds."""
    called, equals, folder = text.partition("=")
    if not equals or not called or "/" in called or Path(text).is_dir():
        return None, Path(text)
    return called, Path(folder)


def _refuse_same_names(found: list[BenchmarkPairs]) -> None:
    """Refuse two folders of the same name, whose figures would become one mean."""
    folders: dict[str, Path] = {}
    for pairs in found:
        for folder, called in {(files.high_path.parent, files.set_name) for files in pairs.files}:
            if folders.setdefault(called, folder) != folder:
                raise DataError(
                    f"{folders[called]} and {folder} would both be the set {called!r}; "
                    f"call one otherwise: --data NAME=FOLDER"
                )
