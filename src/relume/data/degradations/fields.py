"""What several damages are made of: smooth random fields, distances in a scene, blurs, scattered particles.

Shapes: C channels, H W the picture's height and width, h w a kernel's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from relume.data.degradations.blur import extended
from relume.data.degradations.light import luminance
from relume.data.degradations.ranges import normal


def gaussian_blurred(planes: Tensor, sigma: float) -> Tensor:
    """Blur `C H W` with a Gaussian of `sigma` pixels; borders are mirrored, the size is kept."""
    if sigma <= 0:
        return planes
    # Beyond twice a side the mirrored picture only repeats, and the mean is reached.
    reach = min(math.ceil(3 * sigma), 2 * max(planes.shape[-2:]))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).to(planes)
    spread = extended(planes, reach, "mirror").unsqueeze(1)
    rows = F.conv2d(spread, taps.view(1, 1, -1, 1))
    return F.conv2d(rows, taps.view(1, 1, 1, -1)).squeeze(1)


def _convolved(padded: Tensor, kernel: Tensor) -> Tensor:
    """Convolve planes with a kernel where it fits whole, by Fourier transform: kernels may be large."""
    height, width = padded.shape[-2:]
    # Whole multiples of 16 have small factors, which a fast Fourier transform needs to be fast.
    shape = [-(-side // 16) * 16 for side in (height, width)]
    spectrum = torch.fft.rfft2(padded, s=shape) * torch.fft.rfft2(kernel, s=shape)
    whole = torch.fft.irfft2(spectrum, s=shape)
    return whole[..., kernel.shape[0] - 1 : height, kernel.shape[1] - 1 : width]


def fractal(
    height: int, width: int, random: torch.Generator, *, cells: int, roughness: float = 0.5
) -> Tensor:
    """Return a cloud-like field `H W` with values 0..1.

    Random grids, each twice as fine as the one before and `roughness` times as strong, are
    interpolated smoothly and added, down to grids of four pixels a cell.

    Args:
        height: H.
        width: W.
        random: on the CPU.
        cells: of the coarsest grid along the longer side.
        roughness: 0..1; how much the finer grids count.
    """
    longest = max(height, width)
    field = torch.zeros(1, 1, height, width)
    weight = 1.0
    while True:
        rows, columns = (max(1, round(cells * side / longest)) + 1 for side in (height, width))
        grid = torch.rand(1, 1, rows, columns, generator=random)
        field += weight * F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=True)
        cells, weight = 2 * cells, weight * roughness
        if 4 * cells > longest:
            return _spread(field[0, 0])


def scene_distance(picture: Tensor, random: torch.Generator) -> Tensor:
    """Invent how far what a picture shows is away, as `1 H W` from 0 (near) to 1 (far).

    A plane that recedes upwards, slightly tilted, as the ground does; a cloud-like relief; and steps
    between surfaces of different brightness, which so lie at different distances. It has the smoothness
    and the edges of real scenes, and is no measurement of this one.

    Args:
        picture: `C H W`, 0..1.
        random: on the CPU.
    """
    height, width = picture.shape[-2:]
    tilt = math.radians(20) * normal(random)
    rows = torch.linspace(1, 0, height).unsqueeze(1)
    columns = torch.linspace(-0.5, 0.5, width).unsqueeze(0)
    plane = _spread(math.cos(tilt) * rows + math.sin(tilt) * columns)
    relief = fractal(height, width, random, cells=2, roughness=0.4)
    # Which brightness is near and which far is random, so that a network cannot learn it.
    knots = torch.rand(5, generator=random)
    brightness = _smooth_between_edges(luminance(picture).cpu())[0]
    position = brightness.clamp(0, 1) * (len(knots) - 1)
    below = position.long().clamp(max=len(knots) - 2)
    surfaces = torch.lerp(knots[below], knots[below + 1], position - below)
    distance = _spread(plane + 0.5 * relief + 0.5 * surfaces)
    return distance.unsqueeze(0).to(picture.device)


def _smooth_between_edges(plane: Tensor) -> Tensor:
    """Smooth `1 H W` but keep its strong edges: the guided filter (He et al., ECCV 2010) led by itself."""
    radius = max(1, max(plane.shape[-2:]) // 40)

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(
            values.unsqueeze(0), 2 * radius + 1, stride=1, padding=radius, count_include_pad=False
        )[0]

    average = mean(plane)
    variance = (mean(plane * plane) - average * average).clamp(min=0)
    slope = variance / (variance + 0.02)
    return mean(slope) * plane + mean(average - slope * average)


def _spread(field: Tensor) -> Tensor:
    """Stretch values to 0..1; a field of one value becomes 0."""
    low, high = field.min(), field.max()
    return (field - low) / (high - low).clamp(min=1e-6)


def scattered(height: int, width: int, kernel: Tensor, *, count: float, random: torch.Generator) -> Tensor:
    """Return a layer `H W` of copies of one particle at random places, each of random weight 0.3..1.

    Places reach beyond the borders by the particle's size, so that some are cut off there.

    Args:
        height: H.
        width: W.
        kernel: the particle, `h w` with odd sides.
        count: how many particles a megapixel holds on average.
        random: on the CPU.
    """
    rows, columns = (side + size - 1 for side, size in zip((height, width), kernel.shape, strict=True))
    there = torch.rand(rows, columns, generator=random) < count / 1e6
    weight = 0.3 + 0.7 * torch.rand(rows, columns, generator=random)
    return _convolved(there * weight, kernel).clamp(min=0)
