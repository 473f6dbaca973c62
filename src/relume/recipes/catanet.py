"""CATANet on photos shrunk by MATLAB's bicubic.

"gpu" takes patch, batch, distance and learning rate from the authors' options
(https://github.com/EquationWalker/CATANet), and 200,000 steps instead of 800,000. There x3 and x4 start from
x2, which comes without weights here: name yours with `--start`.
"cpu" is for trying out.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.catanet import VARIANTS, CATANetConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.transformers import gpu_budget
from relume.train.settings import OptimiserConfig

SYSTEM = "catanet"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 1000,
        "data": {"patch": 32, "batch": 4},
        "save_every": 100,
    },
    "gpu": gpu_budget(batch=64),
}


class CATANetRecipe(Recipe):
    """A recipe whose network is a CATANet."""

    network: CATANetConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-4)


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> CATANetRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of CATANet's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, CATANetConfig)
    return CATANetRecipe(variant=variant, network=network, **BUDGETS[budget])
