"""Perceptual distance: how differently an encoder sees two pictures, in the manner of LPIPS.

Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018, arXiv:1801.03924, eq. 1. With ŷ_l the features of layer l, divided at
each position by their length over the channels, and w_l its weights:

    d = Σ_l mean over positions of Σ_channels w_l (ŷ_l(output) - ŷ_l(target))²

No encoder is shipped; the user's own is used (`nn.encoders.opening.open_encoder`). The paper's figures
come from its VGG-16, the layers relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 and its learnt weights
(`read_channel_weights`). Without weights each of L layers weighs 1 / L, so that the distance is a mean
whatever the encoder; the paper's unlearnt variant is the sum, L times as much.

Departs from the paper: w weighs the squares, as in the authors' code, and not what is squared.

Shapes: C channels, H W picture, N features, h w positions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from relume.core.checkpoints import read_tensors
from relume.core.errors import CheckpointError, ConfigError
from relume.nn.encoders.base import Encoder

_KEY = re.compile(r"(?:lins?\.?)(\d+)\.(?:model\.)?1\.weight")
# The authors', so that nothing divided by nothing stays nothing.
_LEAST = 1e-10


@dataclass(frozen=True, kw_only=True, eq=False)
class PerceptualDistance:
    """The distance of two pictures in an encoder's features.

    Attributes:
        encoder: gives the features by layer.
        weights: for every layer of the encoder, one weight for each of its N channels; None: layers
            count alike.
    """

    encoder: Encoder
    weights: Mapping[str, Tensor] | None = None

    def measure(self, output: Tensor, target: Tensor) -> float:
        """The distance; features are the encoder's, all that follows is float64.

        Args:
            output: C × H × W in 0 .. 1.
            target: the same shape.

        Returns:
            0 (seen alike) and more; lower is better.

        Raises:
            ValueError: the shapes differ or are not C × H × W.
            ConfigError: the encoder cannot take such pictures, or the weights do not fit it.
        """
        if output.shape != target.shape or output.ndim != 3 or not output.numel():
            raise ValueError(
                "the perceptual distance compares two pictures C × H × W, "
                f"not {tuple(output.shape)} with {tuple(target.shape)}"
            )
        with torch.no_grad():
            seen, wanted = (self.encoder(picture.float()[None]) for picture in (output, target))
            layers = [self._layer(name, seen[name], wanted[name]) for name in seen]
        return sum(layers) / (len(layers) if self.weights is None else 1)

    def _layer(self, name: str, seen: Tensor, wanted: Tensor) -> float:
        difference = (_unit(seen) - _unit(wanted)).square()  # 1 N h w
        if self.weights is None:
            return difference.sum(dim=1).mean().item()
        weights = self.weights.get(name)
        if weights is None or weights.numel() != difference.shape[1]:
            has = "no weights" if weights is None else f"{weights.numel()} weights"
            raise ConfigError(
                f"layer {name!r} of the encoder has {difference.shape[1]} channels and {has} for them; "
                "name layers and weights that belong together"
            )
        weights = weights.to(difference).reshape(1, -1, 1, 1)
        return (weights * difference).sum(dim=1).mean().item()


def read_channel_weights(path: Path, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Read learnt weights as LPIPS keeps them ("lin0.model.1.weight" …), in the order of the layers.

    Args:
        path: a weights file.
        layers: the encoder's layers that they are for, first to last.

    Raises:
        CheckpointError: the file cannot be read, holds none, or not as many as there are layers.
    """
    found = {
        int(match[1]): value for key, value in read_tensors(path).items() if (match := _KEY.fullmatch(key))
    }
    if len(found) != len(layers):
        raise CheckpointError(
            f"{path} holds weights for {len(found)} layers and {len(layers)} are named; name as many"
        )
    return {name: found[index].flatten() for name, index in zip(layers, sorted(found), strict=True)}


def _unit(features: Tensor) -> Tensor:
    """Features of length one over the channels, at each position."""
    features = features.double()
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _LEAST)
