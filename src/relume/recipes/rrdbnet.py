"""RRDBNet taught by L1 on pictures shrunk by MATLAB's bicubic, the first of ESRGAN's two stages.

"gpu" has the numbers of the paper (arXiv:1809.00219, section 4.1): 16 patches of 128 output pixels, 2e-4 for
Adam; days of one large GPU. For the second stage start from such weights, and change the objective:

    relume train rrdbnet-x4 --data PHOTOS --start WEIGHTS --set objective=weighted
        --set objective.adversarial.weight=0.005 --set objective.adversarial.kind=relativistic

and for pictures of unknown damage the degradation: `--set degradation=bsrgan` or `realesrgan`.
"cpu" is for trying out, on the variant of six blocks: a step takes about a second on one core.
"""

from __future__ import annotations

from typing import Any

from relume.data.degradations.base import DegradationConfig
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.degradations.realesrgan import RealESRGANConfig
from relume.models.super_resolution.rrdbnet import VARIANTS, RRDBNetConfig
from relume.recipes.base import Recipe, names_checked
from relume.train.settings import OptimiserConfig

SYSTEM = "rrdbnet"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 1000,
        "data": {"patch": 24, "batch": 4},
        "optimiser": {"learning_rate": 5e-4},
        "save_every": 100,
        "validate_every": 500,
    },
    "gpu": {
        "steps": 400_000,
        "data": {"patch": 32, "batch": 16, "workers": 8},
        "schedule": {"warmup": 1000},
        "precision": "bf16",
        "save_every": 1000,
        "validate_every": 5000,
    },
}


class RRDBNetRecipe(Recipe):
    """A recipe whose network is an RRDBNet."""

    network: RRDBNetConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-4)


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> RRDBNetRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of RRDBNet's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, RRDBNetConfig)
    # What keeps its size mends the damage of unknown pictures.
    degradation: DegradationConfig = RealESRGANConfig() if network.scale == 1 else BicubicConfig()
    return RRDBNetRecipe(variant=variant, network=network, degradation=degradation, **BUDGETS[budget])
