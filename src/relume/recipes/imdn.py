"""IMDN on photos shrunk by MATLAB's bicubic; its same-size form on BSRGAN's damage.

The paper (arXiv:1909.11856) trains with L1 on DIV2K, 16 patches of 192 pixels at high resolution, with Adam
and 2e-4, halved every 200,000 steps. "gpu" is meant for an hour of one GPU, "cpu" for trying out.
x3 and x4 learn sooner from the trunk of x2: name yours with `--start`.
"""

from __future__ import annotations

from relume.data.degradations.base import DegradationConfig
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.degradations.bsrgan import BSRGANConfig
from relume.models.super_resolution.imdn import VARIANTS, IMDNConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.efficient import efficient_budgets
from relume.train.validation import ValidationConfig

SYSTEM = "imdn"

BUDGETS = efficient_budgets(patch=64, batch=32, learning_rate=5e-4)


class IMDNRecipe(Recipe):
    """A recipe whose network is an IMDN."""

    network: IMDNConfig


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> IMDNRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of IMDN's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, IMDNConfig)
    damage: DegradationConfig = BicubicConfig()
    if network.scale == 1:
        damage = BSRGANConfig()
    return IMDNRecipe(
        variant=variant,
        network=network,
        degradation=damage,
        validation=ValidationConfig(protocol="sr-rgb" if network.scale == 1 else "sr-y"),
        **BUDGETS[budget],
    )
