"""Run a recipe: build what it names, train, and leave weights that say where they come from."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from relume.core.catalogue import find_variant, systems
from relume.core.checkpoints import Header, write_checkpoint
from relume.core.errors import ConfigError, RelumeError, UnknownNameError
from relume.data.benchmarks import refuse_channels
from relume.data.pairs import PairLoader
from relume.data.patches import PhotoList
from relume.models import zoo
from relume.nn.network import Network, count_parameters
from relume.nn.surgery import apply_steps
from relume.recipes.base import Recipe
from relume.train.loop import Loop, Observer
from relume.train.observers import Curve, JsonLog, tensorboard_log
from relume.train.state import read_progress
from relume.train.validation import Validation

_LEAST_TAKEN_OVER = 0.5
"""Below this share of a network's parameter tensors, a start is surely not what was meant."""


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
    if budget not in module.BUDGETS:
        raise UnknownNameError("budget", budget, module.BUDGETS)
    found: Recipe = module.recipe(variant, budget)
    return found


class Run:
    """A recipe in a folder, ready to start or to go on.

    Args:
        recipe: what to run.
        folder: where log, pictures, state and weights go; made when missing.
        command: the command line that describes the run, kept with the weights.
        observers: who else is told, e.g. a progress bar.

    Attributes:
        taken_over: share of the network's parameter tensors that came from `recipe.start`.

    Raises:
        RelumeError: pictures, weights or the folder cannot be used, or it holds another run.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, *, command: str, observers: Iterable[Observer] = ()
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.command = command
        self.system = find_variant(recipe.variant).system
        self.photos = PhotoList.find(recipe.data.folders)
        # The photos are part of what a run is: going on with others would be another run.
        resolved = {**recipe.model_dump(mode="json"), "photos": self.photos.digest}
        self.done = _steps_done(folder, resolved)
        torch.manual_seed(recipe.seed)
        self.network = zoo.build(recipe.network, system=self.system)
        scale, named = self.network.contract.scale, find_variant(recipe.variant).scale
        if scale != named:
            raise ConfigError(
                f"{recipe.variant} enlarges by {named}, but its recipe was set to {scale}; "
                f"train the variant of that scale instead"
            )
        self.taken_over = 0.0
        if recipe.start is not None:
            source, _ = zoo.load(recipe.start)
            left = self.network.start_from(source)
            self.taken_over = 1 - len(left) / len(list(self.network.parameters()))
            if self.taken_over < _LEAST_TAKEN_OVER:
                raise ConfigError(
                    f"of this network only {self.taken_over:.0%} can start from {recipe.start}; "
                    f"choose another --start, or --start none"
                )
        _freeze(self.network, recipe.frozen)
        source_of_batches = PairLoader(
            self.photos, recipe.data, recipe.degradation.build(scale), scale=scale,
            channels=self.network.contract.channels, seed=recipe.seed,
        )  # fmt: skip
        validate = None
        if recipe.validation.folder is not None:
            refuse_channels(self.network.contract.channels)
            validate = Validation(recipe.validation, scale=scale, folder=folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RelumeError(
                f"cannot make the folder {folder}: {error.strerror}; choose another --run"
            ) from error
        tensorboard = tensorboard_log(folder)
        self.loop = Loop(
            self.network,
            recipe.objective.build(),
            source_of_batches,
            recipe,
            folder=folder,
            recipe=resolved,
            validate=validate,
            observers=[
                JsonLog(folder),
                *([tensorboard] if tensorboard else []),
                Curve(folder, title=recipe.variant),
                *observers,
            ],
            on_best=lambda state, step: self._write(self.best_path, state, step),
        )

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
        with _stopping_cleanly(self.loop):
            averaged = self.loop.run()
        if self.loop.accelerator.is_main_process:
            self._write(self.weights_path, averaged, self.recipe.steps, finished=True)
        # Without this, several processes wait for each other for ever when they exit.
        self.loop.accelerator.end_training()
        return self.weights_path

    def _write(self, path: Path, state: Mapping[str, Tensor], step: int, *, finished: bool = False) -> None:
        network: Network = zoo.build(self.recipe.network, system=self.system)
        network.load_state_dict(dict(state))
        if finished:
            apply_steps(network, zoo.variant(self.recipe.variant).steps)
        header = Header(
            model=self.system,
            variant=zoo.variant_of(self.system, self.recipe.network),
            config=self.recipe.network.model_dump(mode="json"),
            steps=network.steps,
            trained={
                "by": "relume",
                "step": step,
                "of_steps": self.recipe.steps,
                "hours": round(self.loop.seconds / 3600, 3),
                "device": str(self.loop.accelerator.device),
                "pictures": len(self.photos.paths),
                "pictures_sha256": self.photos.digest,
                "folders": [_public_name(folder) for folder in self.recipe.data.folders],
                "seed": self.recipe.seed,
                "start": self.recipe.start,
                "taken_over": round(self.taken_over, 4),
                "parameters": count_parameters(network),
                "torch": torch.__version__,
                "command": self.command,
            },
            recipe=_without_places(self.recipe.model_dump(mode="json")),
        )
        write_checkpoint(path, network.state_dict(), header)


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
        raise ConfigError(f"frozen: {', '.join(beginnings)} leave nothing to train")


def _public_name(folder: Path) -> str:
    """The last two parts of a folder's name: which set it is, not where the user keeps it."""
    return "/".join(folder.resolve().parts[-2:])


def _without_places(recipe: dict[str, Any]) -> dict[str, Any]:
    """Shorten folder names in a recipe that travels with the weights."""
    recipe["data"]["folders"] = [_public_name(Path(folder)) for folder in recipe["data"]["folders"]]
    if recipe["validation"]["folder"] is not None:
        recipe["validation"]["folder"] = _public_name(Path(recipe["validation"]["folder"]))
    return recipe


def _steps_done(folder: Path, resolved: Mapping[str, Any]) -> int:
    """Return how many steps a run in the folder has done; refuse another recipe's run."""
    progress = read_progress(folder)
    if progress is None:
        return 0
    changed = sorted(
        name for name in {*resolved, *progress.recipe} if resolved.get(name) != progress.recipe.get(name)
    )
    if changed:
        raise RelumeError(
            f"{folder} holds a run with another recipe (it differs in {', '.join(changed)}); "
            f"give the same settings to go on, or choose another --run folder"
        )
    return progress.step


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
