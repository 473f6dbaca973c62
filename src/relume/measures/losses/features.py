"""What losses that compare features share: the encoder, its layers and their weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from relume.measures.losses.base import Loss, LossConfig, same_shape
from relume.nn.encoders.base import Encoder
from relume.nn.encoders.opening import LoadNetwork, Normalise, open_encoder


class FeatureLossConfig(LossConfig):
    """Which features are compared.

    Attributes:
        encoder: a TorchScript or `torch.export` file, the weights of a VGG, a relume model's weights, or
            a variant's name.
        layers: weight of each layer by its name; none: VGG's last convolution, all outputs of a file.
        normalise: whether pictures are prepared by ImageNet's statistics; "auto": for a VGG alone.
    """

    encoder: str
    layers: dict[str, PositiveFloat] = Field(default_factory=dict)
    normalise: Normalise = "auto"

    def open(self, load: LoadNetwork) -> Encoder:
        """Return the encoder.

        Raises:
            RelumeError: it cannot be opened, or has no such layers.
        """
        return open_encoder(self.encoder, self.layers, normalise=self.normalise, load=load)


class FeatureLoss(nn.Module):
    """Sum over layers of weight × distance of features; the target's get no gradient.

    Args:
        encoder: gives the features.
        distance: compares those of one layer, `B N H W`.
        weights: of the layers by name; those not named weigh 1.
    """

    def __init__(self, encoder: Encoder, distance: Loss, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.encoder = encoder
        self.distance = distance
        self.weights = dict(weights)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Compare `B C H W` with `B C H W`.

        Raises:
            ValueError: the shapes differ or are not `B C H W`.
            ConfigError: the encoder cannot take such pictures.
        """
        same_shape("a loss of features", output, target)
        with torch.no_grad():
            wanted = self.encoder(target)
        total = output.new_zeros(())
        for name, features in self.encoder(output).items():
            total = total + self.weights.get(name, 1.0) * self.distance(features, wanted[name])
        return total
