"""BSRN on photos shrunk by MATLAB's bicubic, as the paper trains it.

The paper (arXiv:2205.05996) trains with L1 on DIV2K and Flickr2K, 64 patches of 48 pixels, with Adam and
1e-3, for a million steps. "gpu" is meant for an hour of one GPU, "cpu" for trying out.
x3 and x4 learn sooner from the trunk of x2: name yours with `--start`.
"""

from __future__ import annotations

from relume.models.super_resolution.bsrn import VARIANTS, BSRNConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.efficient import efficient_budgets

SYSTEM = "bsrn"

BUDGETS = efficient_budgets(patch=48, batch=64, learning_rate=1e-3)


class BSRNRecipe(Recipe):
    """A recipe whose network is a BSRN."""

    network: BSRNConfig


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> BSRNRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of BSRN's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, BSRNConfig)
    return BSRNRecipe(variant=variant, network=network, **BUDGETS[budget])
