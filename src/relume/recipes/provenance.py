"""What trained weights say of where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from relume.core.catalogue import find_variant
from relume.core.checkpoints import Header
from relume.core.machine import processor_name, versions
from relume.core.places import public_name, without_places
from relume.data.patches import PhotoList
from relume.data.preparation.reading import PieceList
from relume.models import zoo
from relume.nn.network import Network, count_parameters
from relume.recipes.base import Recipe

_OF_EACH = ("of_steps", "pictures", "folders", "hours", "seed", "start", "command")
"""What is kept of each earlier training."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How far a run has come, by what.

    Attributes:
        step: steps done.
        hours: that they took.
        device: on which.
        processes: how many shared the work.
        photos: that were learnt from.
        before: what `trainings_of` tells of the recipe's start.
        start_sha256: of the tensors of the recipe's start, where it is known.
        taken_over: share of the network's parameter tensors that came from the recipe's start.
        command: the command line that describes the run.
    """

    step: int
    hours: float
    device: torch.device
    processes: int
    photos: PhotoList | PieceList
    before: Sequence[Mapping[str, Any]]
    start_sha256: str
    taken_over: float
    command: str


def trainings_of(header: Header) -> list[dict[str, Any]]:
    """Return by which trainings of ours weights came about, the first one first; empty of others' weights.

    Of each its "variant", None where the network is none of them, and what `_OF_EACH` names.
    """
    trained = header.trained
    if "command" not in trained:
        return []
    last = {name: trained[name] for name in _OF_EACH}
    return [*trained.get("before", ()), {"variant": header.variant, **last}]


def header_of(network: Network, recipe: Recipe, origin: Origin) -> Header:
    """Return what a file of the network's weights says of itself; where the user keeps things stays out.

    Args:
        network: in the form in which it is written.
        recipe: by which it was trained.
        origin: how.
    """
    system = find_variant(recipe.variant).system
    device = origin.device
    return Header(
        model=system,
        variant=zoo.variant_of(system, recipe.network, network.steps, wanted=recipe.variant),
        config=recipe.network.model_dump(mode="json"),
        steps=network.steps,
        trained={
            "by": "relume",
            "step": origin.step,
            "of_steps": recipe.steps,
            "hours": round(origin.hours, 3),
            # Of several processes on a CPU, torch numbers the device.
            "device": "cpu" if device.type == "cpu" else str(device),
            "processor": processor_name(),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            **versions(),
            "processes": origin.processes,
            "pictures": len(origin.photos.paths),
            "pictures_sha256": origin.photos.digest,
            "folders": [public_name(folder) for folder in recipe.data.folders],
            "seed": recipe.seed,
            "start": without_places(recipe.start),
            "start_sha256": origin.start_sha256 or None,
            "before": [dict(each) for each in origin.before],
            "taken_over": round(origin.taken_over, 4),
            "parameters": count_parameters(network),
            "command": origin.command,
        },
        recipe=_passed_on(recipe),
    )


def _passed_on(recipe: Recipe) -> dict[str, Any]:
    values = recipe.model_dump(mode="json")
    values["data"]["folders"] = [public_name(folder) for folder in recipe.data.folders]
    if recipe.validation.folder is not None:
        values["validation"]["folder"] = public_name(recipe.validation.folder)
    shortened: dict[str, Any] = without_places(values)
    return shortened
