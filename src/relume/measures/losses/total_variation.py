"""Total variation: how much a picture changes from pixel to pixel; keeps noise and checkerboards down.

Rudin, Osher, Fatemi, Physica D 60, 1992, in the anisotropic form:

    loss = mean |x(i+1, j) - x(i, j)| + mean |x(i, j+1) - x(i, j)|

A prior, not a distance: it looks at the output alone, is 0 for a flat picture, and a little weight (1e-3
beside l1) is much.
Ranges: from 0 up, in the values' units. Shapes: B C H W; a side of 1 has no steps and counts 0.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from relume.measures.losses.base import Loss, LossConfig
from relume.nn.encoders.opening import LoadNetwork


class TotalVariationLossConfig(LossConfig):
    """Nothing to set but the weight."""

    name: Literal["total-variation"] = "total-variation"

    def build(self, load: LoadNetwork) -> Loss:  # noqa: ARG002
        """Return the loss, which does not look at the target."""
        return lambda output, _target: total_variation(output)


CONFIG = TotalVariationLossConfig


def total_variation(picture: Tensor) -> Tensor:
    """Return the mean absolute step down plus the mean absolute step to the right."""
    steps = (picture.diff(dim=dim).abs() for dim in (-2, -1))
    down, right = (step.mean() if step.numel() else picture.new_zeros(()) for step in steps)
    return down + right
