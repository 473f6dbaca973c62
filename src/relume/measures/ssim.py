"""Structural similarity as the MATLAB script of its authors computes it.

Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP
13(4), 2004, eq. 13, and their `ssim_index.m`: 11 × 11 Gaussian window of sigma 1.5, only where the
window lies wholly inside the picture, K1 = 0.01, K2 = 0.03, biased variances, no downsampling.
(MATLAB's own later `ssim` pads the border instead; papers do not use it.)

Shapes: ... any leading dimensions, H W picture; each plane is measured by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 11
"""Side of the Gaussian window in pixels: the smallest side that can be measured."""

_SIGMA, _K1, _K2 = 1.5, 0.01, 0.03


def ssim(output: Tensor, target: Tensor, *, peak: float = 255.0) -> float:
    """Mean SSIM over all positions of all planes, worked out in float64.

    Args:
        output: ... × H × W, values in 0 .. `peak`.
        target: the same shape.
        peak: the largest value a pixel can have (L in the paper).

    Returns:
        At most 1, which only equal pictures reach; higher is better.

    Raises:
        ValueError: the shapes differ, or a side is shorter than the window.
    """
    if output.shape != target.shape or not output.numel():
        raise ValueError(f"ssim compares equal shapes, not {tuple(output.shape)} with {tuple(target.shape)}")
    if output.ndim < 2 or min(output.shape[-2:]) < WINDOW:
        raise ValueError(f"ssim needs at least {WINDOW}×{WINDOW} pixels, not {tuple(output.shape)}")
    x, y = output.to(torch.float64), target.to(torch.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x * mean_x
    variance_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean().item()


def _blur(x: Tensor) -> Tensor:
    """Weigh by the Gaussian window where it fits: ... × H × W to ... × H-10 × W-10."""
    position = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-position.square() / (2 * _SIGMA**2))
    window /= window.sum()
    # The window is separable; shifted sums beat a float64 convolution on the CPU.
    for dim in (-2, -1):
        length = x.shape[dim] - WINDOW + 1
        total = window[0] * x.narrow(dim, 0, length)
        for shift in range(1, WINDOW):
            total.add_(x.narrow(dim, shift, length), alpha=window[shift].item())
        x = total
    return x
