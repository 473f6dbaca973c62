"""Restormer against motion blur, of one picture or several, in two budgets.

"gpu" has the numbers of the authors' options for GoPro (arXiv:2111.09881, arXiv:2208.13029) but one size of
patches where they go from 128 to 384 pixels, and one cosine from 3e-4 to 1e-6 where they hold 3e-4 for the
first 92,000 steps: 300,000 steps by AdamW, gradients clipped to 0.01, the mean difference of pixels as loss;
days of large GPUs. "cpu" is a few steps, to see it run.
"""

from __future__ import annotations

from typing import Any

from relume.models.restoration.restormer import VARIANTS, RestormerConfig
from relume.recipes.base import AnyObjective, names_checked
from relume.recipes.deblurring import DeblurringRecipe
from relume.train.objectives.multi_output import MultiOutputConfig
from relume.train.settings import OptimiserConfig

SYSTEM = "restormer"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 100,
        "data": {"patch": 32, "batch": 2},
        "schedule": {"warmup": 10},
        "threads": 1,
        "log_every": 10,
    },
    "gpu": {
        "steps": 300_000,
        "data": {"patch": 128, "batch": 32, "workers": 8},
        "schedule": {"warmup": 0, "floor": 1 / 300},
        "ema": 0.0,
        "save_every": 1000,
        "validate_every": 5000,
    },
}


class RestormerRecipe(DeblurringRecipe):
    """A recipe whose network is a Restormer."""

    network: RestormerConfig
    objective: AnyObjective = MultiOutputConfig(distance="l1")
    optimiser: OptimiserConfig = OptimiserConfig(
        name="adamw", learning_rate=3e-4, betas=(0.9, 0.999), weight_decay=1e-4
    )


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> RestormerRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of Restormer's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, RestormerConfig)
    return RestormerRecipe(variant=variant, network=network, **BUDGETS[budget])
