"""SESR on luma of photos shrunk by MATLAB's bicubic, in two budgets.

The paper (arXiv:2103.09404, section 4.1) trains on DIV2K with the mean absolute error and Adam at 5e-4, 32
patches of 64 pixels, for 480,000 steps. "gpu" is meant for an hour of one GPU, "cpu" for one core and about
half an hour. In the paper x4 starts from the trunk of x2, which comes without weights here: name yours with
`--start`.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.sesr import VARIANTS, SESRConfig
from relume.recipes.base import Recipe, names_checked

SYSTEM = "sesr"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 30_000,
        "data": {"patch": 24, "batch": 16},
        "optimiser": {"learning_rate": 1e-3},
        "threads": 1,
        "save_every": 2000,
        "validate_every": 2000,
    },
    "gpu": {
        "steps": 200_000,
        "data": {"patch": 64, "batch": 32, "workers": 8},
        "optimiser": {"learning_rate": 5e-4},
        "schedule": {"warmup": 1000},
        "ema": 0.9995,
        "save_every": 5000,
        "validate_every": 10_000,
    },
}


class SESRRecipe(Recipe):
    """A recipe whose network is a SESR."""

    network: SESRConfig


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> SESRRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of SESR's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, SESRConfig)
    return SESRRecipe(variant=variant, network=network, **BUDGETS[budget])
