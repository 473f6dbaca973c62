"""Contextual loss: each feature of the target should have a likeness somewhere, so nothing need be aligned.

Mechrez, Talmi, Zelnik-Manor, ECCV 2018, arXiv:1803.02077, eq. 1 to 5. With features x_i of the output and
y_j of the target at N places each, and μ the mean of the y_j of the picture:

    d_ij  = 1 - cos(x_i - μ, y_j - μ)
    d̃_ij  = d_ij / (min_k d_ik + 10⁻⁵)
    w_ij  = exp((1 - d̃_ij) / h)
    CX_ij = w_ij / Σ_k w_ik
    loss  = -log (1/N Σ_j max_i CX_ij)   for each picture and layer, averaged over pictures

Ranges: 0 (each place finds its own) to log N. Shapes: B N H W features; time and memory grow with the square
of the places, so that above `places` of them a random draw is compared, the same in both pictures, as the
authors do for shallow layers.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from relume.measures.losses.base import Loss, same_shape
from relume.measures.losses.features import FeatureLoss, FeatureLossConfig
from relume.nn.encoders.opening import LoadNetwork

_EPSILON = 1e-5


class ContextualLossConfig(FeatureLossConfig):
    """Which features, and how sharply the nearest is preferred.

    Attributes:
        bandwidth: h; the authors take 0.5 for texture and style, 0.1 for one picture's own statistics.
        places: the most places that are compared, 2 at least: one lies at the mean, and nothing is learnt.
    """

    name: Literal["contextual"] = "contextual"
    bandwidth: PositiveFloat = 0.5
    places: Annotated[int, Field(ge=2)] = 1024

    def build(self, load: LoadNetwork) -> Loss:
        """Return the loss.

        Raises:
            RelumeError: the encoder cannot be opened.
        """
        return FeatureLoss(
            self.open(load),
            lambda x, y: contextual(x, y, bandwidth=self.bandwidth, places=self.places),
            self.layers,
        )


CONFIG = ContextualLossConfig


def contextual(x: Tensor, y: Tensor, *, bandwidth: float = 0.5, places: int = 1024) -> Tensor:
    """Compare features.

    Args:
        x: features of the output, `B N H W`.
        y: features of the target, the same shape.
        bandwidth: h.
        places: the most places that are compared.

    Raises:
        ValueError: the shapes differ or are not `B N H W`.
    """
    same_shape("contextual", x, y)
    x, y = x.flatten(2), y.flatten(2)  # B N P
    if x.shape[-1] > places:
        drawn = torch.randperm(x.shape[-1], device=x.device)[:places]
        x, y = x[..., drawn], y[..., drawn]
    mean = y.mean(-1, keepdim=True)
    x, y = F.normalize(x - mean, dim=1), F.normalize(y - mean, dim=1)
    distance = (1 - x.transpose(1, 2) @ y).clamp(min=0)  # B P(x) P(y)
    relative = distance / (distance.amin(2, keepdim=True) + _EPSILON)
    # The 1 of 1 - d̃ leaves w / Σ w as it is; softmax keeps the exponentials from under- and overflow.
    similarity = torch.softmax(-relative / bandwidth, dim=2)
    return -similarity.amax(1).mean(1).log().mean()
