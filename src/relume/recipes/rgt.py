"""RGT on photos shrunk by MATLAB's bicubic.

"gpu" takes batch, patch, distance and rate of the authors' options (https://github.com/zhengchen1999/RGT).
There x3 and x4 start from x2, which comes without weights here: name yours with `--start`. "cpu" shows that
it runs.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.rgt import VARIANTS, RGTConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.transformers import gpu_budget
from relume.train.settings import OptimiserConfig

SYSTEM = "rgt"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 500,
        "data": {"patch": 32, "batch": 1},
        "schedule": {"warmup": 50},
        "save_every": 50,
        "log_every": 10,
    },
    "gpu": gpu_budget(batch=32),
}


class RGTRecipe(Recipe):
    """A recipe whose network is an RGT."""

    network: RGTConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-4)


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> RGTRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of RGT's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, RGTConfig)
    return RGTRecipe(variant=variant, network=network, **BUDGETS[budget])
