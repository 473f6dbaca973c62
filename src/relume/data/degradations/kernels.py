"""Blur kernels: Gaussian, generalised Gaussian, plateau and Laplacian, and what is done to kernels.

Sources, each with what follows it:
- MATLAB documentation, `fspecial` ("gaussian", "laplacian").
- Zhang et al., ICCV 2021, arXiv:2103.14006, section 3.1 (anisotropic Gaussian; the nearest-neighbour
  shrinking that needs a shifted kernel, section 3.2).
- Bell-Kligler, Shocher, Irani, NeurIPS 2019, arXiv:1909.06581 (KernelGAN: the kernel of twice the scale,
  appendix; the noisy kernels of its test set, DIV2KRK).
- Wang et al., ICCVW 2021, arXiv:2107.10833, section 3.1 (generalised Gaussian and plateau).

Kernels are float64 `K K`, K odd unless said otherwise, rows first, made on the CPU; every one but the
Laplacian sums to one. Sigmas and offsets are in pixels, angles in radians, x to the right and y down.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Profile = Literal["gaussian", "generalised", "plateau"]
"""How a kernel falls off with the squared distance q in units of its own width."""


def gaussian(size: int, sigma: float) -> Tensor:
    """Return MATLAB's `fspecial("gaussian", size, sigma)`; values below epsilon times the peak are zero."""
    x = _offsets(size)
    kernel = torch.exp(-(x.square()[:, None] + x.square()) / (2 * sigma**2))
    kernel[kernel < torch.finfo(kernel.dtype).eps * kernel.max()] = 0
    return _normalised(kernel)


def anisotropic(size: int, *, angle: float, variance_1: float, variance_2: float) -> Tensor:
    """Return BSRGAN's anisotropic Gaussian.

    Args:
        size: K.
        angle: of the first axis from x to y.
        variance_1: along the first axis, pixels squared; "l1".
        variance_2: along the second axis; "l2".
    """
    return _normalised(torch.exp(-_squared_distance(_offsets(size), angle, variance_1, variance_2) / 2))


def bivariate(
    size: int, *, sigma_1: float, sigma_2: float, angle: float, profile: Profile = "gaussian", beta: float = 1
) -> Tensor:
    """Return one of Real-ESRGAN's kernels, with squared distance q in units of the sigmas.

    Args:
        size: K.
        sigma_1: width along the first axis.
        sigma_2: width along the second axis.
        angle: of the first axis from x to y.
        profile: exp(-q/2), exp(-q^beta / 2) or 1 / (1 + q^beta).
        beta: shape; of no meaning for "gaussian".
    """
    q = _squared_distance(_offsets(size), angle, sigma_1**2, sigma_2**2)
    if profile == "plateau":
        return _normalised(1 / (1 + q**beta))
    return _normalised(torch.exp(-(q if profile == "gaussian" else q**beta) / 2))


def laplacian(alpha: float) -> Tensor:
    """Return MATLAB's `fspecial("laplacian", alpha)`, 3 by 3, sum zero; alpha is clamped to 0..1."""
    alpha = min(max(alpha, 0.0), 1.0)
    corner, side, centre = alpha / (alpha + 1), (1 - alpha) / (alpha + 1), -4 / (alpha + 1)
    return torch.tensor(
        [[corner, side, corner], [side, centre, side], [corner, side, corner]], dtype=torch.float64
    )


def noisy_gaussian(
    size: int, *, scale: int, variance_1: float, variance_2: float, angle: float, noise: Tensor
) -> Tensor:
    """Return a kernel of DIV2KRK: a Gaussian whose centre makes up for keeping each block's first pixel.

    Args:
        size: K, may be even.
        scale: s; the centre lies at K // 2 - (s - 1) / 2 along both axes, so for 1 in the middle of an odd K.
        variance_1: along the first axis, pixels squared.
        variance_2: along the second axis.
        angle: of the first axis from x to y.
        noise: `K K`, relative error of each value; zeros leave the kernel smooth.
    """
    x = torch.arange(size, dtype=torch.float64) - (size // 2 - 0.5 * (scale - 1))
    kernel = torch.exp(-_squared_distance(x, angle, variance_1, variance_2) / 2)
    return _normalised(kernel * (1 + noise))


def doubled(kernel: Tensor) -> Tensor:
    """Return the kernel of twice the scale: shrinking by s twice with `kernel` is shrinking once with it.

    Args:
        kernel: `K K` for a scale of 2, so the result is for 4.

    Returns:
        The kernel convolved with its own dilation by two, `3K-2 3K-2`, less a rim of K // 2.
    """
    size = kernel.shape[-1]
    spread = kernel.new_zeros(2 * size - 1, 2 * size - 1)
    spread[::2, ::2] = kernel
    whole = torch.nn.functional.conv2d(
        spread[None, None], kernel.flip(0, 1)[None, None], padding=size - 1
    ).squeeze()
    rim = size // 2
    return _normalised(whole[rim : whole.shape[0] - rim, rim : whole.shape[1] - rim])


def shifted(values: Tensor, shift: float) -> Tensor:
    """Move a kernel or a picture to the upper left by bilinear interpolation, its border held.

    Args:
        values: ... `H W`.
        shift: s in output(y, x) = values(y + s, x + s), pixels; (scale - 1) / 2 turns a kernel into one
            after which the first pixel of each block stands for the block's middle. Negative moves to
            the lower right. Does not renormalise.
    """
    for dim in (-2, -1):
        last = values.shape[dim] - 1
        place = (torch.arange(last + 1, dtype=torch.float64) + shift).clamp_(0, last)
        lower = place.floor().long()
        upper = (lower + 1).clamp_(max=last)
        share = (place - lower).to(values)
        if dim == -2:
            share = share[:, None]
        values = values.index_select(dim, lower.to(values.device)) * (1 - share) + (
            values.index_select(dim, upper.to(values.device)) * share
        )
    return values


def _offsets(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float64) - (size - 1) / 2


def _squared_distance(x: Tensor, angle: float, variance_1: float, variance_2: float) -> Tensor:
    """Return the squared Mahalanobis distance of each point of a square grid, `K K`."""
    along = math.cos(angle) * x + math.sin(angle) * x[:, None]
    across = math.sin(angle) * x - math.cos(angle) * x[:, None]
    # A width of zero is a limit that a random number reaches once in 2^53; it would give 0 / 0.
    return along.square() / max(variance_1, 1e-12) + across.square() / max(variance_2, 1e-12)


def _normalised(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum()
