"""What the training loop knows: an objective turns a batch and a network into losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn


class Objective(Protocol):
    """A callable that the loop minimises."""

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return scalar losses by name; "loss" is the one that is minimised, the others are logged."""
        ...
