"""Peak signal-to-noise ratio: 10 log10(peak² / MSE), in dB."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def psnr(output: Tensor, target: Tensor, *, peak: float = 255.0) -> float:
    """PSNR over all values of both tensors together, worked out in float64.

    Args:
        output: any shape, values in 0 .. `peak`.
        target: the same shape.
        peak: the largest value a pixel can have.

    Returns:
        Decibels, higher is better; infinity where the two are equal.

    Raises:
        ValueError: the shapes differ or are empty.
    """
    if output.shape != target.shape or not output.numel():
        raise ValueError(f"psnr compares equal shapes, not {tuple(output.shape)} with {tuple(target.shape)}")
    error = (output.to(torch.float64) - target.to(torch.float64)).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)
