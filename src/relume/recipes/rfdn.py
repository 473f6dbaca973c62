"""RFDN on photos shrunk by MATLAB's bicubic, as the paper trains it.

The paper (arXiv:2009.11551) trains with L1 on DIV2K, 64 patches of 64 pixels, with Adam and 5e-4, halved
every 200,000 steps. "gpu" is meant for an hour of one GPU, "cpu" for trying out.
x3 and x4 learn sooner from the trunk of x2: name yours with `--start`.
"""

from __future__ import annotations

from relume.models.super_resolution.rfdn import VARIANTS, RFDNConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.efficient import efficient_budgets

SYSTEM = "rfdn"

BUDGETS = efficient_budgets(patch=64, batch=64, learning_rate=5e-4)


class RFDNRecipe(Recipe):
    """A recipe whose network is an RFDN."""

    network: RFDNConfig


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> RFDNRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of RFDN's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, RFDNConfig)
    return RFDNRecipe(variant=variant, network=network, **BUDGETS[budget])
