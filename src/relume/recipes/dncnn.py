"""DnCNN and IRCNN's denoiser against Gaussian noise, of one level or of any up to 55, in two budgets.

"gpu" has the paper's patches (arXiv:1608.03981, section 4.2): 128 of 40 pixels, or 50 where blind, and
Adam at 1e-3, where the paper has stochastic gradient descent. "cpu" is made for one core.

Variants of one channel are taught by what MATLAB's `rgb2gray` makes of colour photos, as the authors' code
does, to which the noise is added afterwards. A validation set needs no noisy pictures: the recipe's noise is
added to it, and figures stand beside those of the noisy input.
"""

from __future__ import annotations

from typing import Any

from relume.data.degradations.noise import NoiseConfig
from relume.models.restoration.dncnn import VARIANTS, DnCNNConfig
from relume.recipes.base import AnyObjective, Recipe, names_checked
from relume.train.objectives.pixel import PixelConfig
from relume.train.validation import ValidationConfig

SYSTEM = "dncnn"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 2000,
        "data": {"patch": 40, "batch": 8},
        "save_every": 200,
        "validate_every": 500,
    },
    "gpu": {
        "steps": 100_000,
        "data": {"patch": 40, "batch": 128, "workers": 8},
        "schedule": {"warmup": 1000},
        "save_every": 1000,
        "validate_every": 5000,
    },
}
_BLIND_PATCH = 50


class DnCNNRecipe(Recipe):
    """A recipe whose network is a DnCNN."""

    network: DnCNNConfig
    objective: AnyObjective = PixelConfig(name="mse")
    validation: ValidationConfig = ValidationConfig(protocol="sr-rgb", damaged=True)


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> DnCNNRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of DnCNN's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, DnCNNConfig)
    settings = dict(BUDGETS[budget])
    level = variant.rpartition("-")[2]
    if level == "blind":
        settings["data"] = {**settings["data"], "patch": _BLIND_PATCH}
        noise = NoiseConfig(level=(0, 55))
    else:
        noise = NoiseConfig(level=(float(level), float(level)))
    return DnCNNRecipe(variant=variant, network=network, degradation=noise, **settings)
