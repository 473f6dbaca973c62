"""Noise of pictures: Gaussian, with correlated channels, speckle, and Poisson's of counted light.

Sources: Zhang et al., ICCV 2021, arXiv:2103.14006, section 3.3 and the authors' code (Gaussian, correlated,
speckle, `shot`); Wang et al., ICCVW 2021, arXiv:2107.10833, section 3.1 and its code (`scaled_shot`).

Fields are made apart from being added, so that a recorded field can take a drawn one's place.
Everything is drawn on the CPU from the generator given, whatever device the picture is on.
Shapes: C channels, H W size. Pictures are float32 0..1.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from relume.data.degradations.base import SameSizeConfig, each_picture
from relume.data.degradations.ranges import NonNegativeRange, Share, uniform, within

_LUMA = (0.299, 0.587, 0.114)


class NoiseConfig(SameSizeConfig):
    """Settings of plain Gaussian noise, as denoisers are trained with; clamped to 0..1.

    Attributes:
        level: standard deviation, 8-bit levels; at most 255.
        gray: probability that it is the same in every channel.
    """

    name: Literal["noise"] = "noise"
    level: Annotated[NonNegativeRange, within(0, 255)] = (0, 55)
    gray: Share = 0.0

    def damage(self) -> Noise:
        """Return the degradation."""
        return Noise(self)


class Noise:
    """Adds Gaussian noise; `margin` is 0."""

    margin = 0

    def __init__(self, config: NoiseConfig) -> None:
        self.config = config

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        sigma = uniform(self.config.level, random) / 255
        gray = uniform((0, 1), random) < self.config.gray
        return added(picture, gaussian(picture.shape, sigma=sigma, gray=gray, generator=random))


def gaussian(shape: torch.Size, *, sigma: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Draw a field of Gaussian noise.

    Args:
        shape: `C H W` of the picture.
        sigma: standard deviation, in units of the full range.
        gray: the same in every channel; the field then has one.
        generator: of the numbers, on the CPU.

    Returns:
        `C H W` or `1 H W`.
    """
    channels = 1 if gray else shape[-3]
    return torch.randn(channels, *shape[-2:], generator=generator) * sigma


def correlated(shape: torch.Size, *, covariance: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a field of Gaussian noise whose channels depend on each other.

    Args:
        shape: `C H W` of the picture.
        covariance: `3 3`, symmetric. Where it is not positive, its singular values are taken for its
            eigenvalues, as NumPy's `multivariate_normal` does. A gray picture gets its first channel.
        generator: of the numbers, on the CPU.
    """
    _, spread, axes = torch.linalg.svd(covariance.double())
    mixing = (spread.sqrt()[:, None] * axes).float()
    field = torch.randn(*shape[-2:], 3, generator=generator) @ mixing
    return field.movedim(-1, 0)[: shape[-3]]


def added(picture: Tensor, field: Tensor) -> Tensor:
    """Add a field and clamp to 0..1."""
    return (picture + field.to(picture)).clamp(0, 1)


def multiplied(picture: Tensor, field: Tensor) -> Tensor:
    """Add a field in proportion to the picture (speckle) and clamp to 0..1."""
    return (picture + picture * field.to(picture)).clamp(0, 1)


def shot(picture: Tensor, *, peak: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Count light: BSRGAN's Poisson noise.

    Args:
        picture: `C H W`; rounded to 8 bits first.
        peak: photons that make white; fewer is noisier.
        gray: count the luma's photons and add the same error to every channel.
        generator: of the counts, on the CPU.

    Returns:
        The noisy picture, clamped to 0..1.
    """
    levels = to_levels(picture)
    light = to_levels(luma(levels)) if gray else levels
    return (levels + counted(light, peak, generator)).clamp(0, 1)


def scaled_shot(picture: Tensor, *, strength: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Count light and exaggerate the error: Real-ESRGAN's Poisson noise.

    Args:
        picture: `C H W`. White is as many photons as the 8-bit picture has distinct levels, up to the
            next power of two, as in scikit-image.
        strength: factor on the error; "scale".
        gray: count the luma's photons and add the same error to every channel.
        generator: of the counts, on the CPU.

    Returns:
        The noisy picture, clamped to 0..1.
    """
    light = to_levels(luma(picture) if gray else picture)
    levels = torch.bincount(light.mul(255).round().int().flatten(), minlength=256).count_nonzero()
    peak = 2.0 ** math.ceil(math.log2(int(levels)))
    return (picture + strength * counted(light, peak, generator)).clamp(0, 1)


def counted(light: Tensor, peak: float, generator: torch.Generator) -> Tensor:
    """Return the error of counting photons: Poisson(light × peak) / peak - light."""
    return torch.poisson(light.cpu() * peak, generator=generator).to(light) / peak - light


def luma(picture: Tensor) -> Tensor:
    """Return the brightness of `C H W` as `1 H W`; a gray picture is its own."""
    if picture.shape[-3] == 1:
        return picture
    return (picture * picture.new_tensor(_LUMA)[:, None, None]).sum(-3, keepdim=True)


def to_levels(picture: Tensor) -> Tensor:
    """Clamp and round to whole 8-bit levels, still 0..1."""
    return picture.clamp(0, 1).mul(255).round() / 255


CONFIG = NoiseConfig
