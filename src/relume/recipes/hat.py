"""HAT on photos shrunk by MATLAB's bicubic, from the start or after pre-training on the same task.

"gpu" takes batch, patch and distance of the authors' options (https://github.com/XPixelGroup/HAT), and their
2e-4 for Adam. The paper's best figures come in two steps (section 3.4): "pretrain" teaches the same task,
with the same scale, on as many pictures as there are, and "finetune" goes on from its weights on the
pictures that count, at 1e-5:

    relume train hat-x4 --budget pretrain --data IMAGENET --run runs/hat-x4-pretrain
    relume train hat-x4 --budget finetune --data DF2K --start runs/hat-x4-pretrain/hat-x4.safetensors

The second starts from where the first leaves its weights, if `--start` does not say otherwise. Without such,
the authors start x4 from x2, which `--start` names too. "cpu" shows that it runs.
"""

from __future__ import annotations

from typing import Any

from relume.models.super_resolution.hat import VARIANTS, HATConfig
from relume.recipes.base import Recipe, names_checked
from relume.recipes.transformers import gpu_budget
from relume.train.settings import OptimiserConfig

SYSTEM = "hat"

_GPU = gpu_budget(batch=32)
BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": 500,
        "data": {"patch": 32, "batch": 1},
        "schedule": {"warmup": 50},
        "save_every": 50,
        "log_every": 10,
    },
    "gpu": _GPU,
    "pretrain": {**_GPU, "steps": 400_000},
    "finetune": {**_GPU, "steps": 100_000, "optimiser": {"learning_rate": 1e-5}, "schedule": {"warmup": 0}},
}


class HATRecipe(Recipe):
    """A recipe whose network is a HAT."""

    network: HATConfig
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-4)


@names_checked(VARIANTS, BUDGETS)
def recipe(variant: str, budget: str = "cpu") -> HATRecipe:
    """Return the complete recipe of a variant.

    Args:
        variant: one of HAT's variants.
        budget: a key of `BUDGETS`.
    """
    network = VARIANTS[variant].config
    assert isinstance(network, HATConfig)
    start = f"runs/{variant}-pretrain/{variant}.safetensors" if budget == "finetune" else None
    return HATRecipe(variant=variant, network=network, start=start, **BUDGETS[budget])
