"""ESSAformer on cubes of many bands, shrunk by MATLAB's bicubic.

Batches and steps are chosen here, as the authors name none. "cpu" is for trying out. Training's patches come
from photos, which have too few bands: with them a training is refused. It takes a loader of cubes, which
`core.cubes` reads.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.essaformer import VARIANTS, ESSAformerConfig
from relume.recipes.base import Recipe
from relume.train.settings import OptimiserConfig

SYSTEM = "essaformer"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 200,
        "data": {"patch": 8, "batch": 2},
        "save_every": 50,
    },
    "gpu": {
        "steps": 20_000,
        "data": {"patch": 16, "batch": 16, "workers": 4},
        "schedule": {"warmup": 500},
        "save_every": 1000,
    },
}


class ESSAformerRecipe(Recipe):
    """A recipe whose network is an ESSAformer."""

    network: ESSAformerConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=1e-4)


def recipe(variant: str, budget: str = "cpu") -> ESSAformerRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of ESSAformer's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, ESSAformerConfig)
    return ESSAformerRecipe(variant=variant, network=network, **BUDGETS[budget])
