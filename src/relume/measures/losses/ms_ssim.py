"""Multi-scale structural similarity as a loss: 1 - MS-SSIM.

Wang, Simoncelli, Bovik, Asilomar 2003, eq. 7; as a loss Zhao et al., arXiv:1511.08861. Each scale is the one
before, averaged over 2 × 2 pixels; with l_M luminance at the last of M scales and cs_j contrast and
structure at scale j, both averaged over the picture,

    loss = 1 - l_M^w_M ∏ cs_j^w_j,   w = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333.

Departs from the paper:
- l and cs of the last scale are multiplied at each place before they are averaged, as in single-scale SSIM
  (and in the authors' own MATLAB code);
- fewer scales than five, for small patches, take the first weights, scaled to sum 1;
- a mean cs below 0, which has no real power, counts as next to nothing.

Ranges: 0 (equal) to 1. Shapes: B C H W, sides of at least 11 · 2^(M-1).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from relume.core.errors import ConfigError
from relume.measures.losses.base import Loss, LossConfig, same_shape
from relume.measures.losses.ssim import similarity
from relume.measures.ssim import WINDOW
from relume.nn.encoders.opening import LoadNetwork

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_LEAST = 1e-6


class MultiScaleSSIMLossConfig(LossConfig):
    """The values' peak and the number of scales.

    Attributes:
        peak: the largest value a pixel can have.
        scales: M; the published 5 need patches of 176 pixels a side, 3 need 44.
    """

    name: Literal["ms-ssim"] = "ms-ssim"
    peak: PositiveFloat = 1.0
    scales: Annotated[int, Field(ge=1, le=len(WEIGHTS))] = len(WEIGHTS)

    def build(self, load: LoadNetwork) -> Loss:  # noqa: ARG002
        """Return the loss."""
        return lambda output, target: ms_ssim_loss(output, target, peak=self.peak, scales=self.scales)


CONFIG = MultiScaleSSIMLossConfig


def ms_ssim_loss(output: Tensor, target: Tensor, *, peak: float = 1.0, scales: int = len(WEIGHTS)) -> Tensor:
    """Return 1 - MS-SSIM, each plane's own, averaged.

    Raises:
        ValueError: the shapes differ or are not `B C H W`.
        ConfigError: a side is too short for so many scales.
    """
    same_shape("ms-ssim", output, target)
    side = min(output.shape[-2:])
    if side < WINDOW * 2 ** (scales - 1):
        fitting = max((count for count in range(1, scales) if side >= WINDOW * 2 ** (count - 1)), default=0)
        advice = f"set its scales to {fitting} or raise data.patch" if fitting else "raise data.patch"
        raise ConfigError(
            f"the ms-ssim loss of {scales} scales needs patches of {WINDOW * 2 ** (scales - 1)} pixels a "
            f"side, got {output.shape[-1]}×{output.shape[-2]}; {advice}"
        )
    total = sum(WEIGHTS[:scales])
    product = output.new_ones(output.shape[:2])  # B C
    for index, weight in enumerate(WEIGHTS[:scales]):
        luminance, structure = similarity(output, target, peak=peak)
        if index == scales - 1:
            structure = luminance * structure
        product = product * structure.mean((-2, -1)).clamp(min=_LEAST) ** (weight / total)
        output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
    return 1 - torch.mean(product)
