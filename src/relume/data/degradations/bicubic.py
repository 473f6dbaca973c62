"""Bicubic shrinking as MATLAB's `imresize` does it: the classic degradation of super-resolution papers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from relume.data.degradations.base import DegradationConfig
from relume.nn.resize import imresize_uint8


class BicubicConfig(DegradationConfig):
    """Shrink by the model's scale, nothing else; it has no settings."""

    name: Literal["bicubic"] = "bicubic"

    def build(self, scale: int) -> Bicubic:
        """Return the degradation for one scale."""
        return Bicubic(scale)


class Bicubic:
    """Shrinks a batch exactly as the low-resolution test pictures are made, 8-bit rounding included.

    Attributes:
        margin: low-resolution pixels at the border that the patch's edge, rather than
            the photo around it, has shaped (the kernel reaches 2 low-resolution pixels).
    """

    margin = 2

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Shrink `B C sH sW` to `B C H W`, both whole 8-bit levels over 255; nothing here is random."""
        height, width = (size // self.scale for size in high.shape[-2:])
        # MATLAB rounds to 8 bits between the two passes, so whole levels go in.
        levels = high.mul(255).round_().to(torch.uint8)
        return imresize_uint8(levels, height=height, width=width).float().div_(255)


CONFIG = BicubicConfig
