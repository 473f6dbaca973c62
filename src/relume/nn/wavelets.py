"""Wavelets: a picture's details, apart from what is smooth.

Haar's is the shortest orthonormal wavelet (Mallat, IEEE TPAMI 11(7), 1989). Of each cell of 2×2 pixels,

    a b      LH = (a + b - c - d) / 2   horizontal edges
    c d      HL = (a - b + c - d) / 2   vertical edges
             HH = (a - b - c + d) / 2   diagonals

Shapes: B C H W.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def haar_details(x: Tensor) -> Tensor:
    """Return the three bands of details of one level, LH, HL and HH, each with all channels; differentiable.

    An odd side is mirrored by one pixel, the border pixel not repeated.

    Args:
        x: `B C H W`, float, sides from 2.

    Returns:
        `B 3C H/2 W/2`, sides rounded up.

    Raises:
        ValueError: a side is shorter than 2.
    """
    height, width = x.shape[-2:]
    if min(height, width) < 2:
        raise ValueError(f"a wavelet needs sides of 2 pixels, got {width}×{height}")
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="reflect")
    upper, lower = x[..., ::2, :], x[..., 1::2, :]
    smooth, steep = (upper + lower) / 2, (upper - lower) / 2  # down the columns
    return torch.cat(
        (
            steep[..., ::2] + steep[..., 1::2],
            smooth[..., ::2] - smooth[..., 1::2],
            steep[..., ::2] - steep[..., 1::2],
        ),
        dim=1,
    )
