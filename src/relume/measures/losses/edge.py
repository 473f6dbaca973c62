"""Distance of edges: what the eye follows, whatever the brightness.

With d = output - target and each operator applied to each plane, its border repeated:

    sobel      mean ½ (|S_x d| + |S_y d|), S a Sobel kernel over 8, so the slope in values a pixel
    laplacian  mean √((L d)² + ε²), ε = 10⁻³: the Charbonnier distance of second derivatives
               (the edge loss of Zamir et al., MPRNet, arXiv:2102.02808, eq. 4)

Departs from MPRNet: L is the plain 4-neighbour Laplacian, where their code takes the picture less itself
blurred, thinned and blurred again, a band about five pixels wide.
Ranges: sobel from 0 up, laplacian from ε up. Shapes: B C H W.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from relume.measures.losses.base import Loss, LossConfig, same_shape
from relume.nn.encoders.opening import LoadNetwork

_SOBEL = (
    ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0)),
    ((-1.0, -2.0, -1.0), (0.0, 0.0, 0.0), (1.0, 2.0, 1.0)),
)
_LAPLACIAN = (((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),)
_EPSILON = 1e-3


class EdgeLossConfig(LossConfig):
    """Which operator finds the edges.

    Attributes:
        operator: "sobel" (slopes) or "laplacian" (bends, finer and more afraid of noise).
    """

    name: Literal["edge"] = "edge"
    operator: Literal["sobel", "laplacian"] = "sobel"

    def build(self, load: LoadNetwork) -> Loss:  # noqa: ARG002
        """Return the loss."""
        return sobel_distance if self.operator == "sobel" else laplacian_distance


CONFIG = EdgeLossConfig


def sobel_distance(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of slopes.

    Raises:
        ValueError: the shapes differ or are not `B C H W`.
    """
    same_shape("edge", output, target)
    return (_filtered(output - target, _SOBEL) / 8).abs().mean()


def laplacian_distance(output: Tensor, target: Tensor) -> Tensor:
    """Return the Charbonnier distance of Laplacians.

    Raises:
        ValueError: the shapes differ or are not `B C H W`.
    """
    same_shape("edge", output, target)
    return torch.sqrt(_filtered(output - target, _LAPLACIAN).square() + _EPSILON**2).mean()


def _filtered(x: Tensor, kernels: tuple[tuple[tuple[float, ...], ...], ...]) -> Tensor:
    """Apply K kernels of 3×3 to each plane: `B C H W` to `BC K H W`."""
    planes = F.pad(x.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(planes, x.new_tensor(kernels)[:, None])
