"""CFSR on photos shrunk by MATLAB's bicubic, as the paper trains it, and for photos of unknown damage.

The paper (arXiv:2401.05633) trains with L1 and Adam on DIV2K and Flickr2K for
days of GPU time. "gpu" scales that to half an hour of one large GPU; "cpu" is
made for two cores and about half an hour a scale, where small batches, many
steps and a high rate got furthest: after the same time on x2, 8 patches reached
0.36 dB more than 16 on Set5, and a rate of 2e-3 reached 0.29 dB more than 1e-3.
In both, x3 and x4 start from the trunk of x2, which saves them most of their steps.

The variants for photos are trained in two runs. The first teaches the network of
their scale to see through BSRGAN's damage, with L1:

    relume train cfsr-x4 --start cfsr-x4 --set degradation=bsrgan --run runs/cfsr-x4-blind …

The second, theirs, begins with its weights and splits each kernel in two, one
for fidelity (strength 0) and one that a discriminator judges as well (strength 1):

    relume train cfsr-x4-photo --start runs/cfsr-x4-blind/cfsr-x4.safetensors …
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.cfsr import VARIANTS, CFSRConfig
from relume.recipes.base import Recipe

SYSTEM = "cfsr"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 12_000,
        "data": {"patch": 32, "batch": 8},
        "optimiser": {"learning_rate": 2e-3},
        "threads": 2,
        "validate_every": 1000,
    },
    "gpu": {
        "steps": 40_000,
        "data": {"patch": 64, "batch": 64, "workers": 8},
        "optimiser": {"learning_rate": 1e-3},
        "schedule": {"warmup": 1000},
        "ema": 0.9995,
        "precision": "bf16",
        "save_every": 1000,
        "validate_every": 2000,
    },
}

# In place of the settings above, for the second run of a variant for photos. Without an encoder of features
# the discriminator alone asks for texture, so its part is small.
_PHOTO: dict[str, dict[str, Any]] = {
    "cpu": {"steps": 4000, "optimiser": {"learning_rate": 2e-4}},
    "gpu": {"steps": 20_000, "optimiser": {"learning_rate": 1e-4}, "precision": "fp32"},
}
_PHOTO_WIDTHS = {"cpu": 16, "gpu": 64}


class CFSRRecipe(Recipe):
    """A recipe whose network is a CFSR."""

    network: CFSRConfig


def recipe(variant: str, budget: str = "cpu") -> CFSRRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of CFSR's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, CFSRConfig)
    settings = dict(BUDGETS[budget])
    if variant.endswith("-photo"):
        settings |= {
            **_PHOTO[budget],
            "surgery": VARIANTS[variant].steps,
            "start": variant.removesuffix("-photo"),
            "degradation": "bsrgan",
            "objective": {
                "name": "multi-loss",
                "aims": [["l1"], ["l1"]],
                "adversarial": {
                    "weight": 0.02,
                    "discriminator": {"name": "unet", "width": _PHOTO_WIDTHS[budget]},
                },
            },
        }
    elif network.scale != 2:
        settings["start"] = "cfsr-x2"
    return CFSRRecipe(variant=variant, network=network, **settings)
