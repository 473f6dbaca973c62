"""Run a recipe: build what it names, train, and leave weights that say where they come from."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from relume.core.catalogue import find_variant, systems
from relume.core.checkpoints import write_checkpoint
from relume.core.contract import Contract
from relume.core.errors import ConfigError, DataError, RelumeError, naming
from relume.core.files import alone_in
from relume.data.benchmarks import BenchmarkPairs, Damage, find_pairs, held_out_pairs
from relume.data.degradations.base import Telling
from relume.data.pairs import PairLoader
from relume.data.patches import PhotoList
from relume.data.preparation.reading import PieceList
from relume.models import zoo
from relume.nn.network import Network
from relume.nn.surgery import apply_steps
from relume.recipes.base import Recipe
from relume.recipes.provenance import Origin, header_of, trainings_of
from relume.train.demand import Timing, demand, memory_left, time_steps
from relume.train.loop import Loop, Observer
from relume.train.objectives.base import Classifying
from relume.train.objectives.models import build_objective
from relume.train.observers import Curve, JsonLog, tensorboard_log
from relume.train.state import numbered_paths, read_progress
from relume.train.validation import Validation, plain_name

_TRIED = 2
"""Patches on which a step's demand is counted; some objectives compare one with another."""

_PATIENCE = 60.0
"""Seconds that a validation may take where only its time is wanted."""

_LEAST_TAKEN_OVER = 0.5
"""Below this share of a network's parameter tensors, a start is surely not what was meant."""

_FREE = ("log_every", "keep", "keep_every", "data.workers", "data.ahead", "data.memory_gib")
"""Settings that change no weights, so a run may go on with others."""


def find_recipe(variant: str, budget: str) -> Recipe:
    """Return the recipe of a variant.

    Raises:
        UnknownNameError: no such variant or budget.
        ConfigError: the variant's system has no recipe.
    """
    system = systems()[find_variant(variant).system]
    if system.recipe is None:
        raise ConfigError(f"{system.name} has no recipe, so {variant} cannot be trained")
    module = import_module(system.recipe)
    found: Recipe = module.recipe(variant, budget)
    return found


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps of a run came to.

    Attributes:
        timing: of the steps.
        validation_seconds: of one validation; None where nothing is validated.
        validated: whether one was done; else its seconds are reckoned from a part.
        whole_seconds: estimate for all steps and validations.
    """

    timing: Timing
    validation_seconds: float | None
    validated: bool
    whole_seconds: float


class Run:
    """A recipe in a folder, ready to start or to go on.

    Args:
        recipe: what to run.
        folder: where log, pictures, state and weights go; made when missing.
        command: the command line that describes the run, kept with the weights.
        observers: who else is told, e.g. a progress bar.
        only_asked: whether only what the run needs is asked, perhaps for another machine: losses of a large
            network are then tried on parts of patches, and this machine may lack memory.

    Attributes:
        start_sha256: of the tensors of `recipe.start`; empty where there is none or its file does not tell.
        taken_over: share of the network's parameter tensors that came from `recipe.start`.
        demand: what it asks of the machine.
        memory: estimate of the bytes that each process needs.
        lack: what memory this machine lacks for it, in a sentence; None where it suffices or is not known.

    Raises:
        RelumeError: pictures, weights or the folder cannot be used, it holds another run, or it lacks memory.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        command: str,
        observers: Iterable[Observer] = (),
        only_asked: bool = False,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.command = command
        self.system = find_variant(recipe.variant).system
        torch.manual_seed(recipe.seed)
        self.network = zoo.build(recipe.network, system=self.system, steps=recipe.surgery)
        contract = self.network.contract
        with _asking_for_cubes(contract):
            self.photos = PieceList.find(recipe.data.folders) or PhotoList.find(
                recipe.data.folders, cubes=contract.of_cubes
            )
        source, self.start_sha256, self._before = None, "", list[dict[str, Any]]()
        if recipe.start is not None:
            with naming("start"):
                source, header = zoo.load(recipe.start)
            self.start_sha256, self._before = header.sha256, trainings_of(header)
        # The photos and the weights to start from are part of what a run is, whatever their names:
        # going on with others would be another run.
        resolved = recipe.model_dump(mode="json")
        resolved |= {"photos": self.photos.digest, "start_sha256": self.start_sha256}
        self.done = _steps_done(folder, resolved)
        scale, named = contract.scale, find_variant(recipe.variant).scale
        if scale != named:
            raise ConfigError(
                f"{recipe.variant} enlarges by {named}, but its recipe was set to {scale}; "
                f"train the variant of that scale instead"
            )
        self.taken_over = 0.0
        if source is not None:
            with naming("start"):
                left = self.network.start_from(source)
            self.taken_over = 1 - len(left) / len(list(self.network.parameters()))
            if self.taken_over < _LEAST_TAKEN_OVER:
                raise ConfigError(
                    f"start: of this network only {self.taken_over:.0%} can start from {recipe.start}; "
                    f"choose another --start, or --start none"
                )
        _freeze(self.network, recipe.frozen)
        degradation = recipe.degradation.build(scale)
        self._source = PairLoader(
            self.photos, recipe.data, degradation, scale=scale,
            channels=contract.channels, luma=contract.luma, cubes=contract.of_cubes, seed=recipe.seed,
        )  # fmt: skip
        # Photos that do not fit the network are told first.
        tried = self._source.some(_TRIED)
        damage = Damage(function=degradation) if recipe.validation.damaged else None
        pairs = _validated(recipe, self.photos, contract, damage)
        self._validation = None
        if pairs is not None:
            self._validation = Validation(recipe.validation, pairs, contract=contract, folder=folder)
        objective = build_objective(recipe.objective, lambda name: zoo.load(name)[0])
        if isinstance(objective, Classifying) and isinstance(degradation, Telling):
            objective.expect(len(degradation.kinds))
        tensorboard = tensorboard_log(folder)
        self.loop = Loop(
            self.network,
            objective,
            self._source,
            recipe,
            folder=folder,
            recipe=resolved,
            validate=self._validation,
            decides=recipe.validation.best,
            lowest=recipe.validation.lowest,
            observers=[
                JsonLog(folder),
                *([tensorboard] if tensorboard else []),
                Curve(folder, title=recipe.variant, figure=recipe.validation.best, plain=plain_name(scale)),
                *observers,
            ],
            on_best=lambda state, step: self._write(self.best_path, state, step),
            on_numbered=lambda state, step: self._write(numbered_paths(folder, step)[1], state, step),
        )
        world = self.loop.accelerator.num_processes
        _refuse_uneven(recipe, world)
        self.demand = demand(self.loop.stepper, tried, brief=only_asked)
        self.memory = self.demand.memory(recipe.data.batch // world // recipe.accumulate)
        self.lack = _lack_of_memory(self.memory, self.loop)
        if self.lack and not only_asked:
            raise ConfigError(f"{self.lack}; lower data.batch or data.patch, or raise accumulate")

    @property
    def best_path(self) -> Path:
        """Averaged weights of the best validation, in the training form."""
        return self.folder / "best.safetensors"

    @property
    def weights_path(self) -> Path:
        """Averaged weights of the last step, in the form that is used."""
        return self.folder / f"{self.recipe.variant}.safetensors"

    def train(self) -> Path:
        """Train to the end and return the path of the weights.

        Raises:
            RunStoppedError: interrupted (Ctrl-C); the state is saved and the same command goes on.
            RelumeError: the training cannot go on.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RelumeError(
                f"cannot make the folder {self.folder}: {error.strerror}; choose another --run"
            ) from error
        main = self.loop.accelerator.is_main_process
        busy = RelumeError(
            f"another training is at work in {self.folder}; wait for it or choose another --run"
        )
        with alone_in(self.folder, busy) if main else nullcontext():
            with _stopping_cleanly(self.loop):
                averaged = self.loop.run()
            if main:
                self._write(self.weights_path, averaged, self.recipe.steps, finished=True)
        self.loop.part()
        return self.weights_path

    def rehearse(self, *, steps: int = 10, tell: Callable[[str, int, int], None]) -> Rehearsal:
        """Take a few real steps and validate once; the weights move, so train with another `Run`.

        What would take more than about a minute is reckoned from a part.

        Args:
            steps: how many are timed.
            tell: told what is done, and how much of how much.
        """
        # Loaders begin by working ahead, so what they can keep up shows only later.
        ahead = self.recipe.data.workers * self.recipe.data.ahead
        if self.demand.side < self.recipe.data.patch:  # so few steps that workers would only hold them up
            ahead, self.loop.source = 0, self._source.by_itself()
        tell("timing steps", 0, 2 + ahead + steps)
        timing = time_steps(
            self.loop, warm_up=2 + ahead, steps=steps, side=self.demand.side,
            tell=lambda done, of: tell("timing steps", done, of),
        )  # fmt: skip
        seconds, validated = None, False
        if self._validation is not None and self.loop.accelerator.is_main_process:
            tell("validating", 0, 1)
            self.folder.mkdir(parents=True, exist_ok=True)
            seconds, validated = self._validation.rehearse(self.network.eval(), most_seconds=_PATIENCE)
        validations = -(-self.recipe.steps // self.recipe.validate_every)
        whole = timing.seconds * self.recipe.steps + (seconds or 0.0) * validations
        return Rehearsal(timing, seconds, validated, whole)

    def _write(self, path: Path, state: Mapping[str, Tensor], step: int, *, finished: bool = False) -> None:
        recipe, device = self.recipe, self.loop.accelerator.device
        network = zoo.build(recipe.network, system=self.system, steps=recipe.surgery)
        network.load_state_dict(dict(state))
        if finished:
            apply_steps(network, zoo.variant(recipe.variant).steps)
        origin = Origin(
            step=step,
            hours=self.loop.progress.seconds / 3600,
            device=device,
            processes=self.loop.accelerator.num_processes,
            photos=self.photos,
            taken_over=self.taken_over,
            before=self._before,
            start_sha256=self.start_sha256,
            command=self.command,
        )
        header = header_of(network, recipe, origin)
        write_checkpoint(path, network.state_dict(), header)


@contextmanager
def _asking_for_cubes(contract: Contract) -> Iterator[None]:
    """Name the setting by which a model of photos takes cubes, where what was given holds none."""
    try:
        yield
    except DataError as error:
        if contract.of_cubes and not contract.cubes:
            raise DataError(
                f"{error}; network.channels={contract.channels} asks for cubes, and for photos 1 or 3 are "
                f"right"
            ) from error
        raise


def _validated(
    recipe: Recipe, photos: PhotoList | PieceList, contract: Contract, damage: Damage | None
) -> BenchmarkPairs | None:
    """Return what is validated on: the set that is named, else what is held out of the photos, if anything.

    Raises:
        DataError: the set cannot be found.
    """
    if recipe.validation.folder is not None:
        return find_pairs(
            recipe.validation.folder, scale=contract.scale, damage=damage, cubes=contract.of_cubes
        )
    if not recipe.data.held_out:
        return None
    return held_out_pairs(photos.paths, scale=contract.scale, held_out=recipe.data.held_out, damage=damage)


def _freeze(network: Network, beginnings: tuple[str, ...]) -> None:
    """Keep the parameters whose names begin so from being trained.

    Raises:
        ConfigError: no name begins so, or nothing is left to train.
    """
    for beginning in beginnings:
        named = [value for name, value in network.named_parameters() if name.startswith(beginning)]
        if not named:
            raise ConfigError(f"frozen: no parameter's name begins with {beginning!r}")
        for value in named:
            value.requires_grad_(False)
    if not any(value.requires_grad for value in network.parameters()):
        raise ConfigError(f"frozen: {', '.join(map(repr, beginnings))} leave nothing to train")


def _steps_done(folder: Path, resolved: Mapping[str, Any]) -> int:
    """Return how many steps a run in the folder has done; refuse another recipe's run."""
    progress = read_progress(folder)
    if progress is None:
        return 0
    before, now = _flat(progress.recipe), _flat(resolved)
    changed = sorted(
        name for name in {*before, *now} if name not in _FREE and before.get(name) != now.get(name)
    )
    if changed:
        raise RelumeError(
            f"{folder} holds a run with another recipe (it differs in {', '.join(changed)}); "
            f"give the same settings to go on, or choose another --run folder"
        )
    return progress.step


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested plain values under dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _refuse_uneven(recipe: Recipe, world: int) -> None:
    """Refuse a batch that processes and accumulation cannot cut evenly.

    Raises:
        ConfigError: they cannot; batches that can are named.
    """
    batch, pieces = recipe.data.batch, world * recipe.accumulate
    if batch % pieces:
        fitting = [size for size in (batch // pieces * pieces, (batch // pieces + 1) * pieces) if size]
        raise ConfigError(
            f"data.batch={batch} cannot be cut evenly for {world} process{'es' if world > 1 else ''} with "
            f"accumulate={recipe.accumulate}; {' or '.join(map(str, fitting))} can"
        )


def _lack_of_memory(needed: int, loop: Loop) -> str | None:
    """Tell where more memory is needed than there is, for sure: what is needed for a moment is left out."""
    device = loop.accelerator.device
    left = memory_left(device)
    # Processes on CPUs of one machine share its memory; each GPU has its own.
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1
    if left is not None and needed * sharing > left:
        return (
            f"training needs about {needed * sharing / 2**30:.1f} GiB of memory, but {left / 2**30:.1f} GiB "
            f"is free on {device.type}"
        )
    return None


@contextmanager
def _stopping_cleanly(loop: Loop) -> Iterator[None]:
    """Let Ctrl-C and a polite kill save the state before the run ends."""

    def stop(number: int, _frame: FrameType | None) -> None:
        loop.ask_to_stop()
        # A second signal is meant: it ends the run at once, with the last saved state.
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
