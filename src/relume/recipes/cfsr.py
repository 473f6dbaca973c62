"""CFSR on photos shrunk by MATLAB's bicubic, as the paper trains it, and for photos of unknown damage.

The paper (arXiv:2401.05633) trains with L1 and Adam on DIV2K and Flickr2K for
days of GPU time. "gpu" is a guess at what fits into half an hour of one large
GPU, on which it has not been run yet; "cpu" is made for two cores and less than an
hour a scale, where small batches, many steps and a high rate got furthest:
after the same time on x2, 8 patches reached 0.36 dB more than 16 on Set5, and a
rate of 2e-3 reached 0.29 dB more than 1e-3. Muon in Adam's place gave 0.44 dB more
after 400 steps from nothing (35.15 and 34.71). On a CPU that has instructions for it,
`--set precision=bf16` took 0.6 of the time for the same figures. In both budgets, x3
and x4 start from the trunk of x2, which saves them most of their steps.

"blind" variants are taught by BSRGAN's damage, with L1, and measured on it; x4 starts from
the variant of its scale, x2 from blind x4. Muon serves them as well: blind x4 had 21.87 dB on damaged
Set14 after 2,000 of its steps, Adam at 1e-3 had 21.80. "photo" variants start from the blind one and
split each kernel in two, one for fidelity (strength 0) and one that a discriminator judges
as well (strength 1).
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.cfsr import VARIANTS, CFSRConfig
from relume.recipes.base import Recipe, names_checked

SYSTEM = "cfsr"

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 20_000,
        "data": {"patch": 32, "batch": 8},
        "optimiser": {"name": "muon", "learning_rate": 2e-3},
        "threads": 1,
        "validate_every": 1000,
    },
    "gpu": {
        "steps": 40_000,
        "data": {"patch": 64, "batch": 64, "workers": 8},
        "optimiser": {"name": "muon", "learning_rate": 2e-3},
        "schedule": {"warmup": 1000},
        "ema": 0.9995,
        "precision": "bf16",
        "save_every": 1000,
        "validate_every": 2000,
    },
}

# In place of the settings above.
_FROM_X2: dict[str, dict[str, Any]] = {
    "cpu": {"steps": 12_000, "start": "cfsr-x2"},
    "gpu": {"start": "cfsr-x2"},
}
_BLIND: dict[str, dict[str, Any]] = {
    "cpu": {"steps": 10_000},
    "gpu": {},
}
_DAMAGED = {"degradation": "bsrgan", "validation": {"damaged": True}}
# What the trunk has learnt of damage at x4 holds at x2, and saves a third of the steps.
_BLIND_X2: dict[str, dict[str, Any]] = {
    "cpu": {"steps": 7000, "start": "cfsr-x4-blind"},
    "gpu": {"start": "cfsr-x4-blind"},
}
# Without an encoder of features the discriminator alone asks for texture, so its part is small. It pulls all
# cells of flat places into one direction: without the grid's loss a pattern of `scale` pixels shows after 500
# steps at strength 1, and without the loss of flat places a fine hatching, in spite of the former, which is
# back after 1,200 steps with a fifth of that loss.
_GRID = 5.0
_FLAT = 15.0
_ADVERSARY = {2: 0.01, 4: 0.005}
_PHOTO: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 1200,
        "optimiser": {"learning_rate": 2e-4},
        "schedule": {"warmup": 100},
        "ema": 0.995,
        "save_every": 250,
    },
    "gpu": {"steps": 20_000, "optimiser": {"learning_rate": 1e-4}, "precision": "fp32"},
}
_PHOTO_WIDTHS = {"cpu": 16, "gpu": 64}


class CFSRRecipe(Recipe):
    """A recipe whose network is a CFSR."""

    network: CFSRConfig


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> CFSRRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of CFSR's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, CFSRConfig)
    settings = dict(BUDGETS[budget])
    if variant.endswith("-blind"):
        start = variant.removesuffix("-blind")
        settings |= {**_BLIND[budget], "start": start, **_DAMAGED}
        if network.scale == 2:
            settings |= _BLIND_X2[budget]
    elif variant.endswith("-photo"):
        grid = {"name": "grid", "weight": _GRID, "period": network.scale}
        flat = {"name": "flat", "weight": _FLAT}
        settings |= {
            **_PHOTO[budget],
            "surgery": VARIANTS[variant].steps,
            "start": variant.replace("-photo", "-blind"),
            **_DAMAGED,
            "objective": {
                "name": "multi-loss",
                "aims": [["l1", grid], ["l1", grid, flat]],
                "adversarial": {
                    "weight": _ADVERSARY[network.scale],
                    "optimiser": {"learning_rate": 2e-4},
                    "discriminator": {"name": "unet", "width": _PHOTO_WIDTHS[budget]},
                },
            },
        }
    elif network.scale != 2:
        settings |= _FROM_X2[budget]
    return CFSRRecipe(variant=variant, network=network, **settings)
