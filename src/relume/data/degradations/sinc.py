"""The sinc filter: an ideal low pass, which rings and overshoots as sharpening and JPEG do.

Wang et al., ICCVW 2021, arXiv:2107.10833, section 3.3: k(i, j) = ωc J1(ωc r) / (2π r) with
r = sqrt(i² + j²), J1 the Bessel function of the first kind and order one, ωc the cutoff in radians a pixel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinc(size: int, cutoff: float) -> Tensor:
    """Return the kernel, float64 `K K` on the CPU, sum one.

    Args:
        size: K, odd.
        cutoff: ωc; π keeps everything that a row of pixels can hold.
    """
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    r = torch.hypot(x[:, None], x)
    kernel = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r)
    middle = (size - 1) // 2
    kernel[middle, middle] = cutoff**2 / (4 * math.pi)  # the limit at r = 0
    return kernel / kernel.sum()
