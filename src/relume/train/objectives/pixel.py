"""Pixel-wise distances between output and target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveFloat, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.config import Config
from relume.measures.losses.pixel import charbonnier


class PixelConfig(Config):
    """Which distance, and its constant.

    Attributes:
        name: "l1" (mean absolute difference), "charbonnier" (its smooth form, Lai et al.,
            arXiv:1710.01992, eq. 4) or "mse" (mean squared difference).
        epsilon: the Charbonnier constant.
    """

    name: Literal["l1", "charbonnier", "mse"] = "l1"
    epsilon: PositiveFloat = 1e-3

    @model_validator(mode="after")
    def _fits(self) -> PixelConfig:
        if self.name != "charbonnier" and self.epsilon != PixelConfig.model_fields["epsilon"].default:
            raise ValueError(f"{self.name} has no epsilon; it is charbonnier's")
        return self

    def build(self) -> PixelObjective:
        """Return the objective."""
        return PixelObjective(self)


class PixelObjective:
    """Mean pixel-wise distance over a batch with "input" and "target"."""

    def __init__(self, config: PixelConfig) -> None:
        self.config = config

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network on `batch["input"]` and compare with `batch["target"]`, in float32."""
        output = network(batch["input"]).float()
        target = batch["target"]
        match self.config.name:
            case "l1":
                loss = F.l1_loss(output, target)
            case "mse":
                loss = F.mse_loss(output, target)
            case "charbonnier":
                loss = charbonnier(output, target, epsilon=self.config.epsilon)
        return {"loss": loss}


CONFIG = PixelConfig
