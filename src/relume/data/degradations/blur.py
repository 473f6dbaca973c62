"""Filtering by any kernel, one for each picture of a batch or one for all; and plain blur, Gaussian or given.

By FFT: the kernels of blind super-resolution reach 25 by 25, where a direct convolution of a training
patch takes twenty times as long on a CPU.

Shapes: B batch, C channels, H W size, K side of a kernel, odd.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from relume.core.errors import DataError
from relume.core.pictures import SUFFIXES, read
from relume.data.degradations import kernels, matrices
from relume.data.degradations.base import SameSizeConfig, each_picture
from relume.data.degradations.ranges import PositiveRange, Share, uniform, within

Border = Literal["mirror", "edge", "wrap"]
"""What lies outside: 2 1 | 0 1 2 (the border pixel not repeated), 0 0 | 0 1 2, or the other side."""


_NAMES = ("kernels", "kernel", "ker", "k", "f", "h", "psf", "blur_kernel")
"""What kernels are called in a `.mat` that also holds the pictures that they blurred."""


class BlurConfig(SameSizeConfig):
    """Settings of blur.

    Attributes:
        sigma: width of a Gaussian along each of two axes of random direction, pixels; at most 50.
        kernels: a file of kernels, or a folder of such files, from which each picture draws one in place of
            a Gaussian: `.npy` (`K K` or `N K K`), `.mat` (`K K`, `K K N`, or a cell array of kernels) or gray
            pictures (PNG …) of K × K pixels, K odd. Each is scaled to sum to one.
        kernel_noise: largest relative error of each value of a Gaussian, as real kernels are not smooth; 0.25
            is that of DIV2KRK (`kernels`).

    Raises:
        ValueError: noise for kernels that are given.
    """

    name: Literal["blur"] = "blur"
    sigma: Annotated[PositiveRange, within(0, 50)] = (0.5, 3.0)
    kernels: str | None = None
    kernel_noise: Share = 0.0

    @model_validator(mode="after")
    def _given_or_noisy(self) -> BlurConfig:
        if self.kernels and self.kernel_noise:
            raise ValueError("kernel_noise is of Gaussians, and kernels are given; leave one out")
        return self

    def damage(self) -> GaussianBlur | GivenBlur:
        """Return the degradation.

        Raises:
            DataError: there are no kernels where they should be, or some that cannot be used.
        """
        return GivenBlur(read_kernels(Path(self.kernels))) if self.kernels else GaussianBlur(self)


class GaussianBlur:
    """Blurs each picture by a kernel of its own.

    Attributes:
        margin: how far the widest kernel reaches: three sigmas.
    """

    def __init__(self, config: BlurConfig) -> None:
        self.config = config
        self.margin = math.ceil(3 * config.sigma[1])

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        size = 2 * self.margin + 1
        sigma_1, sigma_2 = (uniform(self.config.sigma, random) for _ in range(2))
        angle = uniform((0, math.pi), random)
        noise = 2 * torch.rand(size, size, generator=random, dtype=torch.float64) - 1
        kernel = kernels.noisy_gaussian(
            size, scale=1, variance_1=sigma_1**2, variance_2=sigma_2**2, angle=angle,
            noise=self.config.kernel_noise * noise,
        )  # fmt: skip
        return convolve(picture, kernel)


class GivenBlur:
    """Blurs each picture by one of the kernels, each as likely as any other.

    Args:
        kernels: `K K` each, K odd, of any sides.

    Attributes:
        margin: how far the widest kernel reaches.
    """

    def __init__(self, kernels: list[Tensor]) -> None:
        self.kernels = kernels
        self.margin = max(kernel.shape[-1] // 2 for kernel in kernels)

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        return convolve(picture, self.kernels[int(torch.randint(len(self.kernels), (), generator=random))])


def read_kernels(place: Path) -> list[Tensor]:
    """Read the kernels of a file or of the files in a folder, in the order of their names.

    Args:
        place: a `.npy` or `.mat` file, a picture, or a folder of them.

    Returns:
        float64 `K K` each, of sum one.

    Raises:
        DataError: there are none, or one that cannot be read or used.
    """
    suffixes = (*matrices.SUFFIXES, *SUFFIXES)
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    files = [file for file in files if file.suffix.lower() in suffixes and not file.name.startswith(".")]
    if not files:
        raise DataError(f"{place} holds no kernels; they are read from .npy, .mat and pictures")
    return [kernel for file in files for kernel in _kernels_of(file)]


def _kernels_of(file: Path) -> list[Tensor]:
    if file.suffix.lower() in matrices.SUFFIXES:
        arrays = matrices.read_matrices(file, what="kernels", names=_NAMES)
    else:
        arrays = [read(file).pixels.double().mean(0)]
    found = [kernel for values in arrays for kernel in _single(values)]
    for kernel in found:
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not kernel.shape[0] % 2:
            raise DataError(
                f"{file} holds {'x'.join(map(str, kernel.shape)) or 'one number'}; a kernel is square "
                "with an odd side, as it has a middle: fill it up with zeros"
            )
        if not kernel.isfinite().all() or kernel.sum() <= 0:
            raise DataError(f"{file} holds a kernel whose sum is not above zero; it would leave no light")
    return [kernel / kernel.sum() for kernel in found]


def _single(values: Tensor) -> list[Tensor]:
    """Return the kernels of an array: one, a list `N K K`, or MATLAB's list `K K N`."""
    if values.ndim != 3:
        return [values]
    sides = values.shape
    return list(values.permute(2, 0, 1) if sides[0] == sides[1] != sides[2] else values)


def convolve(pictures: Tensor, kernels: Tensor, *, border: Border = "mirror") -> Tensor:
    """Filter by flipped kernels, as SciPy's `ndimage.convolve`; differentiable in the pictures.

    Args:
        pictures: `C H W` or `B C H W`, float.
        kernels: `K K`, or `B K K` for a batch.
        border: what lies outside the picture.

    Returns:
        The same shape and type as `pictures`.

    Raises:
        ValueError: a kernel of an even side has no middle.
    """
    size = kernels.shape[-1]
    if size % 2 == 0 or kernels.shape[-2] != size:
        raise ValueError(f"a kernel is square with an odd side, this one is {tuple(kernels.shape)}")
    reach = size // 2
    height, width = pictures.shape[-2:]
    spread = extended(pictures, reach, border)
    # Whole multiples of 16 have small factors, which a fast Fourier transform needs to be fast.
    shape = [-(-side // 16) * 16 for side in spread.shape[-2:]]
    kernels = kernels.to(spread).unsqueeze(-3)
    product = torch.fft.rfft2(spread, s=shape) * torch.fft.rfft2(kernels, s=shape)
    filtered = torch.fft.irfft2(product, s=shape)
    return filtered[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def extended(pictures: Tensor, reach: int, border: Border) -> Tensor:
    """Add `reach` pixels on every side; a picture may be smaller than what is added.

    Args:
        pictures: ... `H W`.
        reach: pixels to add.
        border: what they are.
    """
    for dim in (-2, -1):
        side = pictures.shape[dim]
        index = torch.arange(-reach, side + reach, device=pictures.device)
        if border == "edge":
            index = index.clamp(0, side - 1)
        elif border == "wrap":
            index = index % side
        else:
            period = max(2 * (side - 1), 1)
            index = (index % period).minimum((-index) % period)
        pictures = pictures.index_select(dim, index)
    return pictures


CONFIG = BlurConfig
