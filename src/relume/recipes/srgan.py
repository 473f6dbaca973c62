"""SRGAN on photos shrunk by MATLAB's bicubic: SRResNet by the mean squared error, then with a discriminator.

"gpu" has the numbers of the paper (arXiv:1609.04802, section 3.2) where it gives any: 16 patches of 24 input
pixels, 1e-4 for Adam. "cpu" is made for one core: a step takes about a second.

SRGAN starts from SRResNet, which comes without weights here: name yours with `--start`. The paper compares
features of VGG's relu5_4 beside what the discriminator says; no encoder is shipped, so the recipe compares
pixels, and with yours it compares features:

    relume train srgan-x4 --data PHOTOS --start WEIGHTS
        --set 'objective.parts=[{"name": "perceptual", "encoder": "vgg19.pth", "layers": {"relu5_4": 1}}]'
"""

from __future__ import annotations

from typing import Any

from relume.measures.losses.pixel import PixelLossConfig
from relume.models.super_resolution.srgan import VARIANTS, SRGANConfig
from relume.nn.discriminators.srgan import SRGANDiscriminatorConfig
from relume.recipes.base import Recipe, names_checked
from relume.train.objectives.adversarial import AdversarialConfig
from relume.train.objectives.base import ObjectiveConfig
from relume.train.objectives.pixel import PixelConfig
from relume.train.objectives.weighted import WeightedConfig
from relume.train.settings import OptimiserConfig

SYSTEM = "srgan"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 2000,
        "data": {"patch": 24, "batch": 8},
        "optimiser": {"learning_rate": 4e-4},
        "save_every": 200,
        "validate_every": 500,
    },
    "gpu": {
        "steps": 200_000,
        "data": {"patch": 24, "batch": 16, "workers": 8},
        "schedule": {"warmup": 1000},
        "save_every": 1000,
        "validate_every": 5000,
    },
}
# In place of the settings above, for what a discriminator judges.
_ADVERSARIAL: dict[str, dict[str, Any]] = {"cpu": {"optimiser": {"learning_rate": 1e-4}}, "gpu": {}}
_WIDTHS = {"cpu": 16, "gpu": 64}


class SRGANRecipe(Recipe):
    """A recipe whose network is an SRResNet."""

    network: SRGANConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=1e-4, betas=(0.9, 0.999))


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> SRGANRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of SRGAN's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, SRGANConfig)
    settings = dict(BUDGETS[budget])
    objective: ObjectiveConfig = PixelConfig(name="mse")
    if variant.startswith("srgan-"):
        settings |= _ADVERSARIAL[budget]
        judge = SRGANDiscriminatorConfig(width=_WIDTHS[budget])
        # The paper weighs the discriminator's part by 0.001.
        objective = WeightedConfig(
            parts=(PixelLossConfig(name="mse"),),
            adversarial=AdversarialConfig(weight=1e-3, discriminator=judge),
        )
    return SRGANRecipe(variant=variant, network=network, objective=objective, **settings)
