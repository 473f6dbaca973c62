"""SwinIR for each of its tasks, with the damage that the task mends.

"gpu" takes the batch, the patch and the distance of the authors' options
(https://github.com/JingyunLiang/SwinIR), and 2e-4 for Adam. There x3 and x4
start from the trunk of x2, which comes without weights here: name yours with `--start`.
Gray variants are taught by what MATLAB's `rgb2gray` makes of colour photos; what
restores is validated on the set that is named, damaged in the recipe's way.
"cpu" is for trying out, on the light variants: a step takes about a second on one core.
"""

from __future__ import annotations

from typing import Any

from relume.data.degradations.base import DegradationConfig
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.degradations.bsrgan import BSRGANConfig
from relume.data.degradations.jpeg import JpegConfig
from relume.data.degradations.noise import NoiseConfig
from relume.data.degradations.one_of import OneOfConfig
from relume.models.super_resolution.swinir import VARIANTS, SwinIRConfig
from relume.recipes.base import Recipe
from relume.train.objectives.pixel import PixelConfig
from relume.train.settings import OptimiserConfig
from relume.train.validation import ValidationConfig

SYSTEM = "swinir"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 1000,
        "data": {"patch": 32, "batch": 4},
        "optimiser": {"learning_rate": 5e-4},
        "save_every": 100,
    },
    "gpu": {
        "steps": 200_000,
        "data": {"patch": 64, "batch": 32, "workers": 8},
        "schedule": {"warmup": 2000},
        "precision": "bf16",
        "save_every": 1000,
        "validate_every": 5000,
    },
}

# What the tasks that do not enlarge by bicubic mend.
_DAMAGES: dict[str, DegradationConfig] = {
    "swinir-real-x4": BSRGANConfig(),
    "swinir-real-large-x4": BSRGANConfig(),
    "swinir-denoise": NoiseConfig(level=(25, 25)),
    "swinir-denoise-gray": NoiseConfig(level=(25, 25)),
    "swinir-jpeg": JpegConfig(quality=(40, 40)),
    "swinir-plain": OneOfConfig(),
}


class SwinIRRecipe(Recipe):
    """A recipe whose network is a SwinIR."""

    network: SwinIRConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-4)


def recipe(variant: str, budget: str = "cpu") -> SwinIRRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of SwinIR's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, SwinIRConfig)
    restores = network.scale == 1
    return SwinIRRecipe(
        variant=variant,
        network=network,
        degradation=_DAMAGES.get(variant, BicubicConfig()),
        objective=PixelConfig(name="charbonnier" if restores else "l1"),
        validation=ValidationConfig(protocol="sr-rgb" if restores else "sr-y", damaged=restores),
        **BUDGETS[budget],
    )
