"""DLGSANet on photos shrunk by MATLAB's bicubic.

"gpu" takes patch, distance, learning rate and averaging of weights from the authors' options
(https://github.com/NeonLeexiang/DLGSANet), and 200,000 steps instead of 500,000.
"cpu" is for trying out, on the tiny variants.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.dlgsanet import VARIANTS, DLGSANetConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.transformers import gpu_budget
from relume.train.settings import OptimiserConfig

SYSTEM = "dlgsanet"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 1000,
        "data": {"patch": 32, "batch": 4},
        "save_every": 100,
    },
    "gpu": {**gpu_budget(patch=48, batch=32), "ema": 0.999},
}


class DLGSANetRecipe(Recipe):
    """A recipe whose network is a DLGSANet."""

    network: DLGSANetConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=5e-4)


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> DLGSANetRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of DLGSANet's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, DLGSANetConfig)
    return DLGSANetRecipe(variant=variant, network=network, **BUDGETS[budget])
