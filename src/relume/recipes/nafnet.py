"""NAFNet against motion blur, of one picture or several, in two budgets.

"gpu" has the numbers of the authors' options (arXiv:2204.04676, arXiv:2208.13029): 200,000 (for width 64
400,000) steps of 32 (64) patches of 256 pixels by AdamW, a cosine from 1e-3 to 1e-7, gradients clipped to
0.01, minus the PSNR as loss; days of one large GPU. "cpu" is made for one core and the small variants: some
ten minutes.

Two short runs against each other, one head and four (docs/objectives.md): `relume train nafnet-small` and
`relume train mhnafnet-small`, with the same photos and seed.
"""

from __future__ import annotations

from typing import Any

from relume.models.restoration.nafnet import VARIANTS, NAFNetConfig
from relume.recipes.base import names_checked
from relume.recipes.deblurring import DeblurringRecipe
from relume.train.settings import OptimiserConfig

SYSTEM = "nafnet"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 2000,
        "data": {"patch": 64, "batch": 8},
        "threads": 1,
        "validate_every": 500,
    },
    "gpu": {
        "steps": 200_000,
        "data": {"patch": 256, "batch": 32, "workers": 8},
        "schedule": {"warmup": 0, "floor": 1e-4},
        "ema": 0.0,
        "save_every": 1000,
        "validate_every": 5000,
    },
}


class NAFNetRecipe(DeblurringRecipe):
    """A recipe whose network is a NAFNet."""

    network: NAFNetConfig
    optimiser: OptimiserConfig = OptimiserConfig(
        name="adamw", learning_rate=1e-3, betas=(0.9, 0.9), weight_decay=1e-3
    )


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> NAFNetRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of NAFNet's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, NAFNetConfig)
    settings = dict(BUDGETS[budget])
    if budget == "gpu" and network.width == 64:
        settings |= {"steps": 400_000, "data": {**settings["data"], "batch": 64}}
    return NAFNetRecipe(variant=variant, network=network, **settings)
