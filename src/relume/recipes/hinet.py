"""HINet against motion blur, of one picture or several, in two budgets.

"gpu" has the numbers of the authors' options for GoPro (arXiv:2105.06086, arXiv:2208.13029): 400,000 steps of
64 patches of 256 pixels by Adam, a cosine from 2e-4 to 1e-7, gradients clipped to 0.01, minus the PSNR of
both networks' pictures as loss; days of large GPUs. (They halve that loss, which clipped gradients and Adam
hide.) "cpu" is a few steps, to see it run.
"""

from __future__ import annotations

from typing import Any

from relume.models.restoration.hinet import VARIANTS, HINetConfig
from relume.recipes.base import names_checked
from relume.recipes.deblurring import DeblurringRecipe
from relume.train.settings import OptimiserConfig

SYSTEM = "hinet"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 100,
        "data": {"patch": 32, "batch": 2},
        "schedule": {"warmup": 10},
        "threads": 1,
        "log_every": 10,
    },
    "gpu": {
        "steps": 400_000,
        "data": {"patch": 256, "batch": 64, "workers": 8},
        "schedule": {"warmup": 0, "floor": 5e-4},
        "ema": 0.0,
        "save_every": 1000,
        "validate_every": 5000,
    },
}


class HINetRecipe(DeblurringRecipe):
    """A recipe whose network is a HINet."""

    network: HINetConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-4, betas=(0.9, 0.99))


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> HINetRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of HINet's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, HINetConfig)
    return HINetRecipe(variant=variant, network=network, **BUDGETS[budget])
