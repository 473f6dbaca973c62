"""What recipes of transformers for super-resolution have in common: their training on one GPU."""

from __future__ import annotations

from typing import Any


def gpu_budget(*, batch: int, patch: int = 64) -> dict[str, Any]:
    """Return the budget "gpu": 200 000 steps in bfloat16, saved often enough to go on after a stop.

    Args:
        batch: patches in a step.
        patch: side of the input patches, pixels.
    """
    return {
        "steps": 200_000,
        "data": {"patch": patch, "batch": batch, "workers": 8},
        "schedule": {"warmup": 2000},
        "precision": "bf16",
        "save_every": 1000,
        "validate_every": 5000,
    }
