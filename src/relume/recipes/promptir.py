"""PromptIR against five kinds of damage, one for each picture: haze, rain, noise, motion blur, low light.

"gpu" takes patches, batch and rate from the paper (arXiv:2306.13090). "pretrain" comes before it, where
wanted: the network first learns to tell the kinds apart (`train.strategies.dcpt`), and the others then start
from its weights. "cpu" shows that it runs: the network is made for GPUs.
"""

from __future__ import annotations

from typing import Any

from relume.data.degradations.one_of import OneOfConfig
from relume.models.restoration.promptir import VARIANTS, PromptIRConfig
from relume.recipes.base import AnyDegradation, Recipe, names_checked
from relume.train.settings import OptimiserConfig
from relume.train.validation import ValidationConfig

SYSTEM = "promptir"

_LAYERS = {"decoders.1": 96, "decoders.0": 192}
"""The decoder's but for full size, at which DCPT's authors stop in pre-training too; with their widths."""

_GPU: dict[str, Any] = {
    "steps": 200_000,
    "data": {"patch": 128, "batch": 32, "workers": 8},
    "schedule": {"warmup": 2000},
    "precision": "bf16",
    "save_every": 1000,
    "validate_every": 5000,
}

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {"steps": 1000, "data": {"patch": 32, "batch": 2}, "save_every": 100},
    "gpu": _GPU,
    "pretrain": {**_GPU, "steps": 100_000, "objective": {"name": "dcpt", "layers": _LAYERS}},
}


class PromptIRRecipe(Recipe):
    """A recipe whose network is a PromptIR."""

    network: PromptIRConfig
    degradation: AnyDegradation = OneOfConfig()
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-4)
    validation: ValidationConfig = ValidationConfig(protocol="sr-rgb")


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> PromptIRRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of PromptIR's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, PromptIRConfig)
    return PromptIRRecipe(variant=variant, network=network, **BUDGETS[budget])
