"""RLFN on photos shrunk by MATLAB's bicubic.

The paper (arXiv:2205.07514) trains on DIV2K in stages of L1, 64 patches of 256 pixels at high resolution with
Adam and 5e-4, started anew from the stage before, and ends with a contrastive loss or the squared error; here
it is one stage of L1. "gpu" is meant for an hour of one GPU, "cpu" for trying out.
x3 and x4 learn sooner from the trunk of x2: name yours with `--start`, which is also how stages follow.
"""

from __future__ import annotations

from relume.models.super_resolution.rlfn import VARIANTS, RLFNConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.efficient import efficient_budgets

SYSTEM = "rlfn"

BUDGETS = efficient_budgets(patch=64, batch=64, learning_rate=5e-4)


class RLFNRecipe(Recipe):
    """A recipe whose network is an RLFN."""

    network: RLFNConfig


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> RLFNRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of RLFN's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, RLFNConfig)
    return RLFNRecipe(variant=variant, network=network, **BUDGETS[budget])
