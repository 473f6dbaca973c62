"""What an output draws where the target is flat: hatching, ringing, grain that was not there.

A discriminator asks for texture everywhere, and a small network answers with the texture that it can make
cheapest, a fine hatching over walls and skies. With r = output - target, r̄ its mean over windows of
k x k pixels, and v the target's variance in them, mean over channels:

    loss = mean w |r - r̄|,    w = exp(-v / tau²)

What changes over more than a window (colours, light) costs nothing here, and next to nothing costs what is
drawn beside edges and texture of the target, which stay the adversary's.

Next of kin is the loss of locally discriminative learning (Liang et al., CVPR 2022, arXiv:2203.09195), which
weighs by the variance of r itself, large beside texture and small where a hatching is faint.
Ranges: from 0 up, in the values' units. Shapes: B C H W, sides from k.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from relume.core.errors import ConfigError
from relume.measures.losses.base import Loss, LossConfig, same_shape
from relume.nn.encoders.opening import LoadNetwork


class FlatLossConfig(LossConfig):
    """What counts as flat.

    Attributes:
        window: k, odd.
        level: tau, the standard deviation at which a place counts for a third; values 0..1.
    """

    name: Literal["flat"] = "flat"
    window: int = Field(default=9, ge=3)
    level: PositiveFloat = 0.02

    def build(self, load: LoadNetwork) -> Loss:  # noqa: ARG002
        """Return the loss."""
        return lambda output, target: flat(output, target, window=self.window, level=self.level)


CONFIG = FlatLossConfig


def flat(output: Tensor, target: Tensor, *, window: int = 9, level: float = 0.02) -> Tensor:
    """Return the loss.

    Raises:
        ConfigError: the window is even, or larger than the pictures.
    """
    same_shape("flat", output, target)
    if window % 2 == 0 or window > min(output.shape[-2:]):
        raise ConfigError(
            f"loss flat: window must be odd and fit into patches of {tuple(output.shape[-2:])} pixels, "
            f"not {window}"
        )
    edge = window // 2
    mean = F.avg_pool2d(target, window, stride=1)
    variance = (F.avg_pool2d(target.square(), window, stride=1) - mean.square()).mean(1, keepdim=True)
    rest = output - target
    drawn = rest[..., edge : rest.shape[-2] - edge, edge : rest.shape[-1] - edge]
    drawn = drawn - F.avg_pool2d(rest, window, stride=1)
    return ((-variance / level**2).exp() * drawn.abs()).mean()
