"""ESPCN on luma of photos shrunk by MATLAB's bicubic, in two budgets.

The paper (arXiv:1609.05158) minimises the mean squared error on 50,000 photos of ImageNet, cut into patches
of 17 × 17 input pixels. "gpu" is meant for minutes of one GPU, "cpu" for minutes of one core.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.espcn import VARIANTS, ESPCNConfig
from relume.recipes.base import Recipe, names_checked
from relume.train.objectives.pixel import PixelConfig

SYSTEM = "espcn"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 40_000,
        "data": {"patch": 16, "batch": 16},
        "optimiser": {"learning_rate": 3e-3},
        "threads": 1,
        "save_every": 2000,
        "validate_every": 2000,
    },
    "gpu": {
        "steps": 200_000,
        "data": {"patch": 32, "batch": 64, "workers": 8},
        "optimiser": {"learning_rate": 3e-3},
        "schedule": {"warmup": 1000},
        "ema": 0.9995,
        "save_every": 5000,
        "validate_every": 10_000,
    },
}


class ESPCNRecipe(Recipe):
    """A recipe whose network is an ESPCN."""

    network: ESPCNConfig


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> ESPCNRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of ESPCN's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, ESPCNConfig)
    settings = dict(BUDGETS[budget])
    if network.scale != 3:
        settings["start"] = "espcn-x3"
    return ESPCNRecipe(variant=variant, network=network, objective=PixelConfig(name="mse"), **settings)
