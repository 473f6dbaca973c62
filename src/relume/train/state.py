"""What a training must not lose: written whole or not at all, in one safetensors file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from relume.core.checkpoints import read_tensors
from relume.core.errors import CheckpointError
from relume.core.files import whole
from relume.train.ema import WeightAverage

FILE = "state.safetensors"
EARLIER = "earlier.safetensors"
"""The last state that was due, where `FILE` is one of between two of these, saved as the run was stopped."""

NUMBERED = "numbered"


@dataclass(frozen=True)
class Progress:
    """How far a training has come, and what it has learnt about itself on the way.

    Attributes:
        step: optimiser steps done.
        seconds: time spent in them, over all starts.
        best: best validation figure so far, None before the first.
        recipe: the resolved recipe, to refuse continuing another run.
        slowed: factor on the learning rate after going back.
        broken: steps in a row, up to this one, whose loss or gradient was no number.
        returns: how often it went back to get past step `trouble`.
        trouble: furthest step at which it had to go back; 0: none.
        scaler: state of the loss scale, empty without one.
    """

    step: int
    seconds: float
    best: float | None
    recipe: Mapping[str, Any]
    slowed: float = 1.0
    broken: int = 0
    returns: int = 0
    trouble: int = 0
    scaler: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Holdings:
    """All that a training changes and a resumed one must find again.

    Attributes:
        networks: by name: "network", and "partner" where the objective has one.
        optimisers: of each, by the same names.
        average: running mean of the network's weights.
    """

    networks: Mapping[str, nn.Module]
    optimisers: Mapping[str, Optimizer]
    average: WeightAverage

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor under the name that it has in the file."""
        for name, network in self.networks.items():
            yield from ((f"{name}/{key}", value) for key, value in network.state_dict().items())
            for index, moments in self.optimisers[name].state_dict()["state"].items():
                yield from ((f"{name}-optimiser/{index}/{key}", value) for key, value in moments.items())
        yield from ((f"average/{name}", value) for name, value in self.average.mean.items())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put every tensor back in its place.

        Raises:
            RuntimeError, KeyError, ValueError: they belong to another network.
        """
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            group, name = key.split("/", 1)
            groups.setdefault(group, {})[name] = value
        for name, network in self.networks.items():
            network.load_state_dict(groups.get(name, {}))
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in groups.get(f"{name}-optimiser", {}).items():
                index, moment = key.split("/")
                moments.setdefault(int(index), {})[moment] = value
            optimiser = self.optimisers[name]
            optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        with torch.no_grad():
            for name, mean in self.average.mean.items():
                mean.copy_(groups["average"][name])


def random_state() -> dict[str, Tensor]:
    """Return the state of this process's random numbers, which layers such as dropout draw from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


@contextmanager
def undisturbed_random() -> Iterator[None]:
    """Put the random state back afterwards, whatever is drawn inside."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


def set_random_state(states: Mapping[str, Tensor]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def save_state(
    folder: Path, holdings: Holdings, progress: Progress, random: Sequence[Mapping[str, Tensor]],
) -> None:  # fmt: skip
    """Write the holdings, the progress and each process's random state.

    Raises:
        RelumeError: the disk is full or the folder closed.
    """
    tensors = dict(holdings.tensors())
    for rank, states in enumerate(random):
        tensors |= {f"random/{rank}/{name}": value for name, value in states.items()}
    with whole(folder / FILE) as partial:
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        # Not save_file, whose own error would hide that the disk is full.
        partial.write_bytes(save(plain, metadata={"training": json.dumps(asdict(progress))}))


def keep_numbered(folder: Path, step: int, *, keep: int, keep_every: int) -> bool:
    """Keep the newest state under its number too, and remove what is past keeping.

    Args:
        folder: the run's folder.
        step: the state's step.
        keep: how many of the last numbered ones stay.
        keep_every: multiples of it stay for good; 0: none.

    Returns:
        Whether this one was kept.

    Raises:
        RelumeError: the disk is full or the folder closed.
    """
    for_good = bool(keep_every) and step % keep_every == 0
    if not (keep or for_good):
        return False
    state, _ = numbered_paths(folder, step)
    state.parent.mkdir(exist_ok=True)
    _name_also(folder / FILE, state)
    # A run that went back has numbers to come: they no longer belong to it.
    numbers = numbered(folder)
    last = [number for number in numbers if number <= step][-keep:] if keep else []
    for number in numbers:
        if number > step or not (number in last or (keep_every and number % keep_every == 0)):
            for path in numbered_paths(folder, number):
                path.unlink(missing_ok=True)
    return True


def set_aside(folder: Path) -> None:
    """Keep the newest state as the one to go back to, before one of between takes its name.

    Raises:
        RelumeError: the disk is full or the folder closed.
    """
    _name_also(folder / FILE, folder / EARLIER)


def _name_also(path: Path, name: Path) -> None:
    """Give a state a second name. Files of states are replaced, never changed, so two names may share one."""
    with whole(name) as partial:
        partial.unlink()
        try:
            partial.hardlink_to(path)
        except OSError:  # some file systems know no hard links
            shutil.copyfile(path, partial)


def numbered(folder: Path) -> list[int]:
    """Return the steps of a run's numbered states, in order."""
    names = (path.name.partition(".")[0] for path in (folder / NUMBERED).glob("*.state.safetensors"))
    return sorted(int(name) for name in names if name.isdecimal())


def numbered_paths(folder: Path, step: int) -> tuple[Path, Path]:
    """Return where the state of a step and its averaged weights are kept."""
    place = folder / NUMBERED
    return place / f"{step:07d}.state.safetensors", place / f"{step:07d}.safetensors"


def read_progress(folder: Path, name: str = FILE) -> Progress | None:
    """Return how far the run in a folder has come, or None where there is none.

    Args:
        folder: the run's folder.
        name: of its state, `FILE` or `EARLIER`.

    Raises:
        CheckpointError: the file is not the state of a training.
    """
    path = folder / name
    return Progress(**_header(path)) if path.exists() else None


def load_state(folder: Path, holdings: Holdings, *, rank: int = 0, name: str = FILE) -> None:
    """Put everything that `save_state` wrote back in its place.

    Args:
        folder: the run's folder.
        holdings: what is filled.
        rank: which of several processes this is; one that was not there when the state was written keeps
            the random numbers that it has.
        name: of the state, `FILE` or `EARLIER`.

    Raises:
        CheckpointError: the file is damaged or belongs to another network.
    """
    path = folder / name
    tensors = read_tensors(path)
    try:
        holdings.load(tensors)
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} does not belong to this model; choose another --run folder") from error
    prefix = f"random/{rank}/"
    states = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if states:
        set_random_state(states)


def _header(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        # For PyTorch the file would be opened twice, and a training may have put another there in between.
        with safe_open(path, "np") as file:
            values: dict[str, Any] = json.loads((file.metadata() or {})["training"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not the state of a training; remove it or choose another --run"
        ) from error
    if not values.keys() <= Progress.__dataclass_fields__.keys() or "recipe" not in values:
        raise CheckpointError(
            f"{path} is the state of another version's training; remove it or choose another --run"
        )
    return values
