"""CFSR from scratch on photos shrunk by MATLAB's bicubic, as the paper trains it, in two budgets.

The paper (arXiv:2401.05633) trains with L1 and Adam on DIV2K and Flickr2K for
days of GPU time. "gpu" scales that to half an hour of one large GPU; "cpu" is
made for two cores and about half an hour a scale. In both, x3 and x4 start from
the trunk of x2, which saves them most of their steps.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.cfsr import VARIANTS, CFSRConfig
from relume.recipes.base import Recipe

SYSTEM = "cfsr"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 7000,
        "data": {"patch": 32, "batch": 16},
        "optimiser": {"learning_rate": 1e-3},
        "threads": 2,
    },
    "gpu": {
        "steps": 40_000,
        "data": {"patch": 64, "batch": 64, "workers": 8},
        "optimiser": {"learning_rate": 1e-3},
        "schedule": {"warmup": 1000},
        "ema": 0.9995,
        "precision": "bf16",
        "save_every": 1000,
        "validate_every": 2000,
    },
}


class CFSRRecipe(Recipe):
    """A recipe whose network is a CFSR."""

    network: CFSRConfig


def recipe(variant: str, budget: str = "cpu") -> CFSRRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of CFSR's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, CFSRConfig)
    settings = dict(BUDGETS[budget])
    if network.scale != 2:
        settings["start"] = "cfsr-x2"
    return CFSRRecipe(variant=variant, network=network, **settings)
