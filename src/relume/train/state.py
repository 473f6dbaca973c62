"""What a training must not lose: written whole or not at all, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        step: optimiser steps done.
        seconds: time spent in them, over all starts.
        best: best validation figure so far, None before the first.
        recipe: the resolved recipe, to refuse continuing another run.
    """

    step: int
    seconds: float
    best: float | None
    recipe: Mapping[str, Any]


def save_state(
    folder: Path, network: nn.Module, optimiser: Optimizer, average: WeightAverage, progress: Progress,
) -> None:  # fmt: skip
    """Write weights, their mean, the optimiser's moments, random state and progress.

    Raises:
        RelumeError: the disk is full or the folder closed.
    """
    tensors: dict[str, Tensor] = {f"network/{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.mean.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": value for name, value in moments.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    text = {"step": progress.step, "seconds": progress.seconds, "best": progress.best,
            "recipe": progress.recipe}  # fmt: skip
    with whole(folder / FILE) as partial:
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        # Not save_file, whose own error would hide that the disk is full.
        partial.write_bytes(save(plain, metadata={"training": json.dumps(text)}))


def read_progress(folder: Path) -> Progress | None:
    """Return how far the run in a folder has come, or None where there is none."""
    path = folder / FILE
    if not path.exists():
        return None
    values = _header(path)
    return Progress(
        step=values["step"], seconds=values["seconds"], best=values["best"], recipe=values["recipe"]
    )


def load_state(folder: Path, network: nn.Module, optimiser: Optimizer, average: WeightAverage) -> None:
    """Put everything that `save_state` wrote back in its place.

    Raises:
        CheckpointError: the file is damaged or belongs to another network.
    """
    path = folder / FILE
    tensors = read_tensors(path)
    groups: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimiser": {}, "random": {}}
    for key, value in tensors.items():
        group, name = key.split("/", 1)
        groups[group][name] = value
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in groups["optimiser"].items():
        index, name = key.split("/")
        moments.setdefault(int(index), {})[name] = value
    try:
        network.load_state_dict(groups["network"])
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        with torch.no_grad():
            for name, mean in average.mean.items():
                mean.copy_(groups["average"][name])
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} does not belong to this model; choose another --run folder") from error
    torch.set_rng_state(groups["random"]["cpu"])
    if "cuda" in groups["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(groups["random"]["cuda"])


def _header(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            values: dict[str, Any] = json.loads((file.metadata() or {})["training"])
            return values
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not the state of a training; remove it or choose another --run"
        ) from error
