"""CRAFT on photos shrunk by MATLAB's bicubic.

"gpu" takes batch, patch, distance and rate of the authors' options (https://github.com/AVC2-UESTC/CRAFT-SR),
which train each scale from the start on DIV2K. "cpu" is for trying out: a step takes some seconds on one
core.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.craft import VARIANTS, CRAFTConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.transformers import gpu_budget
from relume.train.settings import OptimiserConfig

SYSTEM = "craft"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 500,
        "data": {"patch": 32, "batch": 2},
        "optimiser": {"learning_rate": 5e-4},
        "save_every": 100,
    },
    "gpu": gpu_budget(batch=64),
}


class CRAFTRecipe(Recipe):
    """A recipe whose network is a CRAFT."""

    network: CRAFTConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-4)


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> CRAFTRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of CRAFT's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, CRAFTConfig)
    return CRAFTRecipe(variant=variant, network=network, **BUDGETS[budget])
