"""ESSAformer on hyperspectral cubes, shrunk by MATLAB's bicubic on floats, as SSPSR's protocol has it.

That protocol (Jiang et al., IEEE TCI 2020, arXiv:2005.08752, section IV) is the field's: cubes of floats over
their largest value, patches from one part of a cube, and figures on another that no patch touches. Here that
is the lowest quarter of the rows of each cube; with a validation set of its own, say `data.held_out=0`.
Batches, steps and rates are chosen here, as the authors' code has no training.

A cube has as many bands as its sensor: `--set network.bands=198` makes a network for it. docs/cubes.md has
the figures of a small one that beats bicubic after minutes on one core, and its command.
"""

from __future__ import annotations

from typing import Any

from relume.data.degradations.bicubic import BicubicConfig
from relume.models.super_resolution.essaformer import VARIANTS, ESSAformerConfig
from relume.recipes.base import Recipe, names_checked
from relume.train.settings import OptimiserConfig
from relume.train.validation import ValidationConfig

SYSTEM = "essaformer"

_HELD_OUT = 0.25

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 200,
        "data": {"patch": 8, "batch": 2, "held_out": _HELD_OUT},
        "save_every": 50,
    },
    "gpu": {
        "steps": 20_000,
        "data": {"patch": 16, "batch": 16, "workers": 4, "held_out": _HELD_OUT},
        "schedule": {"warmup": 500},
        "save_every": 1000,
    },
}


class ESSAformerRecipe(Recipe):
    """A recipe whose network is an ESSAformer."""

    network: ESSAformerConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=1e-4)
    validation: ValidationConfig = ValidationConfig(protocol="cube")


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> ESSAformerRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of ESSAformer's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, ESSAformerConfig)
    return ESSAformerRecipe(
        variant=variant, network=network, degradation=BicubicConfig(rounded=False), **BUDGETS[budget]
    )
