"""Bicubic shrinking as MATLAB's `imresize` does it: the classic degradation of super-resolution papers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from relume.data.degradations.base import DegradationConfig
from relume.nn.resize import imresize, imresize_uint8


class BicubicConfig(DegradationConfig):
    """Shrink by the model's scale, nothing else.

    Attributes:
        rounded: whether pictures have 8 bits, before, between the two passes and after; not so cubes.
    """

    name: Literal["bicubic"] = "bicubic"
    rounded: bool = True

    def build(self, scale: int) -> Bicubic:
        """Return the degradation for one scale."""
        return Bicubic(scale, rounded=self.rounded)


class Bicubic:
    """Shrinks a batch exactly as the low-resolution test pictures are made, their 8-bit rounding included.

    Attributes:
        margin: low-resolution pixels at the border that the patch's edge, rather than
            the photo around it, has shaped (the kernel reaches 2 low-resolution pixels).
    """

    margin = 2

    def __init__(self, scale: int, *, rounded: bool = True) -> None:
        self.scale = scale
        self.rounded = rounded

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Shrink `B C sH sW` to `B C H W`, both whole 8-bit levels over 255 where that is asked for.

        Nothing here is random. Without rounding, values may pass 0..1 a little.
        """
        height, width = (size // self.scale for size in high.shape[-2:])
        if not self.rounded:
            return imresize(high, height=height, width=width)
        # MATLAB rounds to 8 bits between the two passes, so whole levels go in.
        levels = high.mul(255).round_().to(torch.uint8)
        return imresize_uint8(levels, height=height, width=width).float().div_(255)


CONFIG = BicubicConfig
