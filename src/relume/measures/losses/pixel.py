"""Pixel-wise distances, with d = output - target and the mean over all values.

    l1           mean |d|
    mse          mean d²
    charbonnier  mean √(d² + ε²), the smooth form of l1 (Lai et al., arXiv:1710.01992, eq. 4)

Shapes: any, equal. Ranges: from 0 up (Charbonnier from ε up), in the values' units.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import PositiveFloat, model_validator
from torch import Tensor
from torch.nn import functional as F

from relume.core.config import Config
from relume.measures.losses.base import Loss, LossConfig
from relume.nn.encoders.opening import LoadNetwork

_EPSILON = 1e-3


class DistanceConfig(Config):
    """Which distance, and its constant.

    Attributes:
        name: "l1", "mse" or "charbonnier".
        epsilon: ε of Charbonnier's.
    """

    name: Literal["l1", "charbonnier", "mse"] = "l1"
    epsilon: PositiveFloat = _EPSILON

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name != "charbonnier" and self.epsilon != _EPSILON:
            raise ValueError(f"{self.name} has no epsilon; it is charbonnier's")
        return self

    def function(self) -> Loss:
        """Return the distance."""
        match self.name:
            case "l1":
                return F.l1_loss
            case "mse":
                return F.mse_loss
            case "charbonnier":
                return lambda output, target: charbonnier(output, target, epsilon=self.epsilon)


class PixelLossConfig(DistanceConfig, LossConfig):
    """A distance as one of several losses."""

    def build(self, load: LoadNetwork) -> Loss:  # noqa: ARG002
        """Return the loss."""
        return self.function()


CONFIG = PixelLossConfig


def charbonnier(output: Tensor, target: Tensor, *, epsilon: float = _EPSILON) -> Tensor:
    """Return mean √(d² + ε²)."""
    return torch.sqrt((output - target).square() + epsilon**2).mean()
