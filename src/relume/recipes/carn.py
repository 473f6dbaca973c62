"""CARN taught by L1 on photos shrunk by MATLAB's bicubic, for one scale.

The paper (arXiv:1803.08664, section 4.2) teaches one network all three scales, 64 patches of 64 input pixels
at a time for 600,000 steps of Adam, 1e-4 halved every 400,000. Here a run is for the variant's own scale and
leaves the upsamplers of others out. "gpu" is meant for an hour of one GPU, "cpu" for trying out; x3 and x4
learn sooner from the trunk of x2: name yours with `--start`.
"""

from __future__ import annotations

from relume.models.super_resolution.carn import VARIANTS, CARNConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.efficient import efficient_budgets

SYSTEM = "carn"

BUDGETS = efficient_budgets(patch=64, batch=64, learning_rate=1e-4)


class CARNRecipe(Recipe):
    """A recipe whose network is a CARN."""

    network: CARNConfig


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> CARNRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of CARN's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, CARNConfig)
    one = network.model_copy(update={"scales": (network.scale,)})
    return CARNRecipe(variant=variant, network=one, **BUDGETS[budget])
