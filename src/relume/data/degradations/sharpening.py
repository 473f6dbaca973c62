"""Unsharp masking where there is something to sharpen, as Real-ESRGAN and BSRGAN+ do to clean pictures.

Wang et al., ICCVW 2021, arXiv:2107.10833 ("sharpened ground truth") and its code. With B the blurred picture
I and R = I - B: M is 1 where |R| exceeds a threshold, blurred in turn; the result is
M (I + weight R) + (1 - M) I, its sharp part clamped to 0..1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relume.data.degradations.blur import extended

# OpenCV's own tables for its smallest kernels where no sigma is given.
_SMALL = {
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
    9: tuple(value / 256 for value in (4, 13, 30, 51, 60, 51, 30, 13, 4)),
}


def sharpened(pictures: Tensor, *, weight: float = 0.5, radius: int = 50, threshold: float = 10) -> Tensor:
    """Sharpen what differs from its surroundings.

    Args:
        pictures: ... `C H W`, float 0..1.
        weight: how much of the difference is added.
        radius: side of the Gaussian, pixels; made odd by adding one.
        threshold: difference from which a pixel counts, 8-bit levels.
    """
    side = radius + 1 - radius % 2
    residual = pictures - _blurred(pictures, side)
    mask = _blurred((residual.abs() * 255 > threshold).to(pictures), side)
    sharp = (pictures + weight * residual).clamp(0, 1)
    return mask * sharp + (1 - mask) * pictures


def _blurred(pictures: Tensor, side: int) -> Tensor:
    """Blur by OpenCV's Gaussian of a side alone, which has sigma 0.3 ((side - 1) / 2 - 1) + 0.8."""
    if side in _SMALL:
        line = torch.tensor(_SMALL[side], dtype=torch.float64)
    else:
        x = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
        line = torch.exp(-x.square() / (2 * (0.3 * ((side - 1) * 0.5 - 1) + 0.8) ** 2))
        line /= line.sum()
    line = line.to(pictures)
    lines = extended(pictures, side // 2, "mirror")
    return lines.unfold(-2, side, 1).matmul(line).unfold(-1, side, 1).matmul(line)
