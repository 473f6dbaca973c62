"""SwinIR for each of its tasks, with the damage that the task mends.

"gpu" has the numbers of the authors' options (https://github.com/cszn/KAIR, options/swinir), kind by kind:

| kind | patch | batch | steps | rate | halved at |
|---|---|---|---|---|---|
| classical | 64 | 32 | 500,000 | 2e-4 | 250, 400, 450 and 475 thousand |
| light | 64 | 64 | 500,000 | 2e-4 | the same |
| real, as far as L1 goes | 64 | 32 | 1,000,000 | 2e-4 | 500, 800, 900 and 950 thousand |
| noise, JPEG | 128, 126 | 8 | 1,600,000 | 2e-4 | 800, 1200, 1400 and 1500 thousand |

Those are days to weeks of several large GPUs; fewer `--set steps=` keep the halvings' places in the run. They
differ in this: mixed precision; x3 and x4 begin at random, where the authors go on from x2 for half the steps
at half the rate (name yours with `--start`, and `--set steps=250000 --set optimiser.learning_rate=1e-4`), as
they do for noise of 25 levels from 15; the real ones then go on with a discriminator for 600,000 steps at
1e-4, which is another run:

    relume train swinir-real-x4 --budget gpu --data PHOTOS --start WEIGHTS --set objective=weighted
        --set objective.adversarial.weight=0.1 --set steps=600000 --set optimiser.learning_rate=1e-4

"swinir-plain", which DCPT trains on five damages, has the numbers of noise.

Gray variants are taught by what MATLAB's `rgb2gray` makes of colour photos; what restores is validated on the
set that is named, damaged in the recipe's way.

"cpu" is for trying out: a step takes one to five seconds on one core, a run from a quarter of an hour
(classical) to an hour and a half (real, large).
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
from relume.recipes.base import Recipe, names_checked
from relume.train.objectives.pixel import PixelConfig
from relume.train.settings import OptimiserConfig
from relume.train.validation import ValidationConfig

SYSTEM = "swinir"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {"steps": 1000, "optimiser": {"learning_rate": 5e-4}, "save_every": 100},
    "gpu": {
        "schedule": {"warmup": 0, "halvings": (0.5, 0.8, 0.9, 0.95)},
        "clip": 0.0,
        "precision": "bf16",
        "save_every": 1000,
        "validate_every": 5000,
    },
}

# In place of these, by the network's reconstruction: light, classical, real, and what keeps the size.
_KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "direct": {
        "cpu": {"data": {"patch": 32, "batch": 4}},
        "gpu": {"steps": 500_000, "data": {"patch": 64, "batch": 64, "workers": 8}},
    },
    "shuffle": {
        "cpu": {"data": {"patch": 16, "batch": 2}},
        "gpu": {"steps": 500_000, "data": {"patch": 64, "batch": 32, "workers": 8}},
    },
    "nearest": {
        "cpu": {"data": {"patch": 16, "batch": 2}},
        "gpu": {"steps": 1_000_000, "data": {"patch": 64, "batch": 32, "workers": 8}},
    },
    "residual": {
        "cpu": {"data": {"patch": 32, "batch": 1}},
        "gpu": {
            "steps": 1_600_000,
            "data": {"patch": 128, "batch": 8, "workers": 8},
            "schedule": {"warmup": 0, "halvings": (0.5, 0.75, 0.875, 0.9375)},
        },
    },
}
# Whole windows of 7 pixels.
_JPEG_PATCHES = {"cpu": 28, "gpu": 126}

# What the tasks that do not enlarge by bicubic mend.
_DAMAGES: dict[str, DegradationConfig] = {
    "swinir-real-x4": BSRGANConfig(),
    "swinir-real-large-x4": BSRGANConfig(),
    "swinir-denoise": NoiseConfig(level=(25, 25)),
    "swinir-denoise-gray": NoiseConfig(level=(25, 25)),
    "swinir-jpeg": JpegConfig(quality=(40, 40)),
    "swinir-jpeg-gray": JpegConfig(quality=(40, 40)),
    "swinir-plain": OneOfConfig(),
}


class SwinIRRecipe(Recipe):
    """A recipe whose network is a SwinIR."""

    network: SwinIRConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-4, betas=(0.9, 0.999))


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> SwinIRRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of SwinIR's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, SwinIRConfig)
    restores = network.scale == 1
    settings = {**BUDGETS[budget], **_KINDS[network.reconstruction][budget]}
    if network.window == 7:
        settings["data"] = {**settings["data"], "patch": _JPEG_PATCHES[budget]}
    return SwinIRRecipe(
        variant=variant,
        network=network,
        degradation=_DAMAGES.get(variant, BicubicConfig()),
        objective=PixelConfig(name="charbonnier" if restores else "l1"),
        validation=ValidationConfig(protocol="sr-rgb" if restores else "sr-y", damaged=restores),
        **settings,
    )
