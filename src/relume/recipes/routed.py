"""The small network and the classifier of a routed network, beside a large network that stays as it is.

As in PCSR's second phase (arXiv:2407.21448), the large way is trained before and
frozen: here it is the shipped CFSR of the same scale. "cpu" is made for one core
and about half an hour.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.routed import VARIANTS, RoutedConfig
from relume.recipes.base import AnyObjective, Recipe, names_checked
from relume.train.objectives.routing import RoutingConfig

SYSTEM = "routed"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 6000,
        "data": {"patch": 32, "batch": 8},
        "optimiser": {"learning_rate": 2e-3},
        "threads": 1,
        "validate_every": 2000,
    },
    "gpu": {
        "steps": 60_000,
        "data": {"patch": 64, "batch": 64, "workers": 8},
        "optimiser": {"learning_rate": 1e-3},
        "schedule": {"warmup": 1000},
        "ema": 0.9995,
        "precision": "bf16",
        "save_every": 1000,
        "validate_every": 5000,
    },
}


class RoutedRecipe(Recipe):
    """A recipe whose network is routed."""

    network: RoutedConfig
    objective: AnyObjective = RoutingConfig(light=0.5)
    frozen: tuple[str, ...] = ("heavy.",)


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> RoutedRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of the routed variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, RoutedConfig)
    start = f"cfsr-x{network.settings['scale']}"
    return RoutedRecipe(variant=variant, network=network, start=start, **BUDGETS[budget])
