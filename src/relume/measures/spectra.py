"""Figures for hyperspectral cubes: PSNR and SSIM by bands, and the angle between spectra (SAM).

Source: Kruse et al., Remote Sensing of Environment 44, 1993 (the spectral angle mapper); the means over bands
are those of SSPSR (Jiang, Sun, Liu, Ma, IEEE TCI 2020, arXiv:2005.08752), which papers on cubes take over.

Shapes: B bands, H W.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relume.measures.psnr import psnr
from relume.measures.ssim import ssim


def spectral_angle(output: Tensor, target: Tensor) -> float:
    """Mean angle between the spectra of the same pixel, worked out in float64.

    Args:
        output: `B H W`.
        target: the same shape.

    Returns:
        Degrees, 0 to 180, lower is better; how bright a spectrum is does not matter. Pixels that are black in
        either cube have no angle and are left out.

    Raises:
        ValueError: the shapes differ, are no cube's, or every pixel is black.
    """
    if output.shape != target.shape or output.ndim != 3:
        raise ValueError(
            f"spectral_angle compares cubes, not {tuple(output.shape)} with {tuple(target.shape)}"
        )
    x, y = (cube.to(torch.float64).flatten(1) for cube in (output, target))
    lengths = x.norm(dim=0) * y.norm(dim=0)
    lit = lengths > 0
    if not lit.any():
        raise ValueError("spectral_angle needs a pixel that is not black in both cubes")
    cosines = (x * y).sum(0)[lit] / lengths[lit]
    return torch.rad2deg(torch.acos(cosines.clamp(-1, 1))).mean().item()


def measure_cube(output: Tensor, target: Tensor) -> dict[str, float]:
    """Return "psnr" and "ssim", means over the bands, and "sam", degrees.

    Args:
        output: `B H W`; what lies beyond 0..1 is clipped, as in a file.
        target: the same shape, values in 0..1.

    Raises:
        ValueError: the shapes differ, are no cube's, or a side is shorter than SSIM's window.
    """
    output = output.clamp(0, 1)
    angle = spectral_angle(output, target)
    decibels = [psnr(*pair, peak=1.0) for pair in zip(output, target, strict=True)]
    # All bands are of one size, so the mean over everything is the mean over bands.
    return {"psnr": sum(decibels) / len(decibels), "ssim": ssim(output, target, peak=1.0), "sam": angle}
