"""Pixel-wise distances between output and target."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from relume.measures.losses.pixel import DistanceConfig


class PixelConfig(DistanceConfig):
    """A distance as all that is minimised."""

    def build(self) -> PixelObjective:
        """Return the objective."""
        return PixelObjective(self)


class PixelObjective:
    """Mean pixel-wise distance over a batch with "input" and "target"."""

    def __init__(self, config: DistanceConfig) -> None:
        self.distance = config.function()

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network on `batch["input"]` and compare with `batch["target"]`, in float32."""
        return {"loss": self.distance(network(batch["input"]).float(), batch["target"])}


CONFIG = PixelConfig
