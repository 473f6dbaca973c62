"""FSRCNN on photos shrunk by MATLAB's bicubic, in two budgets.

The paper (arXiv:1608.00367, section 4.1) minimises the mean squared error of brightness on its General-100
by plain gradient descent, a tenth of the rate for the deconvolution. Colour forms are taught by L1 and Adam
like other efficient networks. "gpu" is meant for an hour of one GPU, "cpu" for trying out.
"""

from __future__ import annotations

from relume.models.super_resolution.fsrcnn import VARIANTS, FSRCNNConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.efficient import efficient_budgets

SYSTEM = "fsrcnn"

BUDGETS = efficient_budgets(patch=32, batch=32, learning_rate=1e-3)


class FSRCNNRecipe(Recipe):
    """A recipe whose network is an FSRCNN."""

    network: FSRCNNConfig


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> FSRCNNRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of FSRCNN's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, FSRCNNConfig)
    return FSRCNNRecipe(variant=variant, network=network, **BUDGETS[budget])
