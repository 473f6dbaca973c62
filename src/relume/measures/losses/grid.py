"""What an output has more of at the same place of each cell, beside the target: the grid of an enlargement.

A network that enlarges by a pixel shuffle gives each place of its cells a kernel of its own. A discriminator
pulls all flat places into one direction, and the kernels follow it: a pattern that repeats from cell to cell.
Pixel losses hardly see it, as it is far below what they average over. With r = output - target, cut into
cells of p x p pixels, and m(i, j) the mean of r at place (i, j) over windows of k x k cells:

    loss = mean |m(i, j) - mean over i, j of m|

0 where the windows' means are those of the target at each place; detail that does not repeat cancels out
in them.

Not from a paper; next of kin is the sub-pixel kernels' common start (Aitken et al., arXiv:1707.02937), which
holds only until an adversary teaches.
Ranges: from 0 up, in the values' units. Shapes: B C H W, sides of which p is a divisor.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from relume.core.errors import ConfigError
from relume.measures.losses.base import Loss, LossConfig, same_shape
from relume.nn.encoders.opening import LoadNetwork


class GridLossConfig(LossConfig):
    """What repeats.

    Attributes:
        period: p, the network's scale, or a multiple of it.
        window: k; patches of fewer cells are one window.
    """

    name: Literal["grid"] = "grid"
    period: int = Field(default=4, ge=2)
    window: PositiveInt = 5

    def build(self, load: LoadNetwork) -> Loss:  # noqa: ARG002
        """Return the loss."""
        return lambda output, target: grid(output, target, period=self.period, window=self.window)


CONFIG = GridLossConfig


def grid(output: Tensor, target: Tensor, *, period: int, window: int = 5) -> Tensor:
    """Return the loss.

    Raises:
        ConfigError: a side is no multiple of the period.
    """
    same_shape("grid", output, target)
    if output.shape[-2] % period or output.shape[-1] % period:
        raise ConfigError(
            f"loss grid: {period} does not divide the sides of patches of {tuple(output.shape[-2:])} pixels; "
            "give the network's scale as period"
        )
    places = F.pixel_unshuffle(output - target, period)  # B C·p² H/p W/p
    side = min(window, *places.shape[-2:])
    means = F.avg_pool2d(places, side, stride=1).unflatten(1, (-1, period * period))  # B C p² ...
    return (means - means.mean(2, keepdim=True)).abs().mean()
