"""What every body has, whatever model stands on it."""

from __future__ import annotations

from torch import Tensor, nn


class Body(nn.Module):
    """A trunk that keeps the picture's size.

    Attributes:
        channels: C of the pictures.
        width: N of the features.
        reach: how far, in pixels, a feature looks into the picture.
        operations: multiplications and additions for each input pixel; a batch norm counts two
            for each value, a PReLU one (the count of Jeong et al., arXiv:2407.21448).
    """

    channels: int
    width: int
    reach: int
    operations: int

    def forward(self, x: Tensor) -> Tensor:
        """Map `B C H W` to `B N H W`."""
        raise NotImplementedError
