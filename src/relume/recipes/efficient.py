"""What recipes of efficient networks have in common, so that what they reach on a CPU can be compared."""

from __future__ import annotations

from typing import Any


def efficient_budgets(*, patch: int, batch: int, learning_rate: float) -> dict[str, dict[str, Any]]:
    """Return budgets: "cpu", the same for all and for trying out, and "gpu", a guess at an hour of one GPU.

    Args:
        patch: side of the papers' input patches, pixels.
        batch: patches in a step.
        learning_rate: the papers' highest.
    """
    return {
        "cpu": {
            "steps": 4000,
            "data": {"patch": 32, "batch": 8},
            "optimiser": {"learning_rate": 1e-3},
            "validate_every": 1000,
        },
        "gpu": {
            "steps": 100_000,
            "data": {"patch": patch, "batch": batch, "workers": 8},
            "optimiser": {"learning_rate": learning_rate},
            "schedule": {"warmup": 1000},
            "precision": "bf16",
            "save_every": 1000,
            "validate_every": 5000,
        },
    }
