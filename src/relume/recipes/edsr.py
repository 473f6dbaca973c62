"""EDSR taught by L1 on photos shrunk by MATLAB's bicubic, in two budgets.

"gpu" has the numbers of the paper (arXiv:1707.02921, section 4.2): 16 patches of 48 input pixels for 300,000
steps, 1e-4 for Adam. There x3 and x4 start from the trunk of x2, which comes without weights here: name yours
with `--start`. "cpu" is made for one core and the baseline: a step takes about a second.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.edsr import VARIANTS, EDSRConfig
from relume.recipes.base import Recipe, names_checked
from relume.train.settings import OptimiserConfig

SYSTEM = "edsr"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 2000,
        "data": {"patch": 24, "batch": 8},
        "optimiser": {"learning_rate": 4e-4},
        "save_every": 200,
        "validate_every": 500,
    },
    "gpu": {
        "steps": 300_000,
        "data": {"patch": 48, "batch": 16, "workers": 8},
        "schedule": {"warmup": 1000},
        "precision": "bf16",
        "save_every": 1000,
        "validate_every": 5000,
    },
}


class EDSRRecipe(Recipe):
    """A recipe whose network is an EDSR."""

    network: EDSRConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=1e-4)


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> EDSRRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of EDSR's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, EDSRConfig)
    return EDSRRecipe(variant=variant, network=network, **BUDGETS[budget])
