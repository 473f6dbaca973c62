"""The steps that practical degradations draw: blur, resize, noise, JPEG, sharpen.

Each is what was drawn and no more; the arithmetic is in the files of its kind. Pictures are `C H W`
float32 0..1, before and after every step; numbers in 8-bit levels are marked so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from relume.data.degradations import kernels, noise, resizing
from relume.data.degradations.blur import convolve
from relume.data.degradations.camera_noise import CameraNoiseConfig
from relume.data.degradations.drawing import Size
from relume.data.degradations.jpeg import jpeg, jpeg_codec
from relume.data.degradations.sharpening import sharpened
from relume.data.degradations.sinc import sinc


class Kernel(Protocol):
    """What was drawn of a blur kernel; printed, it says what in a few words."""

    def build(self) -> Tensor:
        """Return the kernel, float64 `K K`."""
        ...


@dataclass(frozen=True)
class Isotropic:
    """A round Gaussian: side in pixels, sigma in pixels."""

    size: int
    sigma: float

    def build(self) -> Tensor:
        """Return the kernel, float64 `K K`."""
        return kernels.gaussian(self.size, max(self.sigma, 1e-6))

    def __str__(self) -> str:
        return f"σ {self.sigma:.2g}"


@dataclass(frozen=True)
class Anisotropic:
    """BSRGAN's long Gaussian: side in pixels, angle, variances along and across in pixels squared."""

    size: int
    angle: float
    variance_1: float
    variance_2: float

    def build(self) -> Tensor:
        """Return the kernel, float64 `K K`."""
        return kernels.anisotropic(
            self.size, angle=self.angle, variance_1=self.variance_1, variance_2=self.variance_2
        )

    def __str__(self) -> str:
        return _widths(self.variance_1**0.5, self.variance_2**0.5, self.angle)


@dataclass(frozen=True)
class Bivariate:
    """Real-ESRGAN's Gaussian, generalised Gaussian or plateau: side and sigmas in pixels, angle, shape."""

    size: int
    profile: kernels.Profile
    sigma_1: float
    sigma_2: float
    angle: float
    beta: float = 1.0

    def build(self) -> Tensor:
        """Return the kernel, float64 `K K`."""
        return kernels.bivariate(
            self.size,
            sigma_1=self.sigma_1,
            sigma_2=self.sigma_2,
            angle=self.angle,
            profile=self.profile,
            beta=self.beta,
        )

    def __str__(self) -> str:
        shape = "" if self.profile == "gaussian" else f"{self.profile} β {self.beta:.2g} "
        return shape + _widths(self.sigma_1, self.sigma_2, self.angle)


@dataclass(frozen=True)
class Sinc:
    """A low pass that rings: side in pixels, cutoff in radians a pixel."""

    size: int
    cutoff: float

    def build(self) -> Tensor:
        """Return the kernel, float64 `K K`."""
        return sinc(self.size, self.cutoff)

    def __str__(self) -> str:
        return f"ringing {self.cutoff / math.pi:.2f}π"


@dataclass(frozen=True)
class Blur:
    """Filter by a kernel, the border mirrored."""

    kernel: Kernel

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Filter, keeping the size."""
        # Clamped: a sinc overshoots, and a Fourier transform misses 0 by a rounding error.
        return convolve(picture, self.kernel.build()).clamp_(0, 1)

    def __str__(self) -> str:
        return f"blur {self.kernel}" if not isinstance(self.kernel, Sinc) else str(self.kernel)


@dataclass(frozen=True)
class Resize:
    """Resize as OpenCV does.

    Attributes:
        mode: the interpolation.
        factor: sides of the result over those of the picture, or of the final size.
        relative_to: which of the two.
    """

    mode: resizing.Mode
    factor: float
    relative_to: Literal["picture", "final"] = "picture"

    def __call__(self, picture: Tensor, low: Size) -> Tensor:
        """Resize and clamp."""
        sides = low if self.relative_to == "final" else picture.shape[-2:]
        height, width = (max(1, int(self.factor * side)) for side in sides)
        return resizing.resize(picture, height=height, width=width, mode=self.mode).clamp_(0, 1)

    def __str__(self) -> str:
        final = " of final size" if self.relative_to == "final" else ""
        return f"resize ×{self.factor:.2f}{final} {self.mode}"


@dataclass(frozen=True)
class HalveMatlab:
    """Halve by MATLAB's bicubic with antialiasing."""

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Halve and clamp."""
        return resizing.imresize(picture, 0.5).clamp_(0, 1)

    def __str__(self) -> str:
        return "resize ×0.50 MATLAB bicubic"


@dataclass(frozen=True)
class Decimate:
    """Keep the first pixel of each block, after a round Gaussian shifted to stand for the block's middle.

    Attributes:
        block: side of a block, pixels.
        sigma: of the Gaussian, pixels; the kernel is 25 by 25.
    """

    block: int
    sigma: float

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Blur, keep every block-th pixel, clamp."""
        kernel = kernels.shifted(kernels.gaussian(25, self.sigma), (self.block - 1) / 2)
        blurred = convolve(picture, kernel / kernel.sum())
        return blurred[..., :: self.block, :: self.block].clamp(0, 1)

    def __str__(self) -> str:
        return f"blur σ {self.sigma:.2g}, keep 1 of {self.block}"


Covariance = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class GaussianNoise:
    """Gaussian noise, added or (speckle) in proportion to the picture.

    Attributes:
        level: standard deviation, 8-bit levels; of no meaning with a covariance.
        gray: the same in all channels.
        seed: of the field.
        covariance: of the channels, in units of the full range squared.
        speckle: in proportion to the picture.
    """

    level: float
    gray: bool
    seed: int
    covariance: Covariance | None = None
    speckle: bool = False

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Add noise, clamp."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.covariance:
            covariance = torch.tensor(self.covariance, dtype=torch.float64)
            field = noise.correlated(picture.shape, covariance=covariance, generator=generator)
        else:
            field = noise.gaussian(picture.shape, sigma=self.level / 255, gray=self.gray, generator=generator)
        return noise.multiplied(picture, field) if self.speckle else noise.added(picture, field)

    def __str__(self) -> str:
        name = "speckle" if self.speckle else "noise"
        if self.covariance:
            trace = sum(self.covariance[i][i] for i in range(3))
            return f"correlated {name} {255 * (trace / 3) ** 0.5:.0f}"
        return f"{'gray' if self.gray else 'colour'} {name} {self.level:.0f}"


@dataclass(frozen=True)
class PhotonNoise:
    """Noise of counted light with a given number of photons for white.

    Attributes:
        peak: photons that make white.
        gray: the same error in all channels.
        seed: of the counts.
    """

    peak: float
    gray: bool
    seed: int

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Count light, clamp."""
        generator = torch.Generator().manual_seed(self.seed)
        return noise.shot(picture, peak=self.peak, gray=self.gray, generator=generator)

    def __str__(self) -> str:
        return f"{'gray' if self.gray else 'colour'} Poisson noise {self.peak:.0f} photons"


@dataclass(frozen=True)
class ScaledPhotonNoise:
    """Noise of counted light, exaggerated.

    Attributes:
        strength: factor on the error.
        gray: the same error in all channels.
        seed: of the counts.
    """

    strength: float
    gray: bool
    seed: int

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Count light, clamp."""
        generator = torch.Generator().manual_seed(self.seed)
        return noise.scaled_shot(picture, strength=self.strength, gray=self.gray, generator=generator)

    def __str__(self) -> str:
        return f"{'gray' if self.gray else 'colour'} Poisson noise ×{self.strength:.2f}"


@dataclass(frozen=True)
class SensorNoise:
    """A camera's noise of ordinary strength: the degradation "camera-noise" with its own settings.

    Attributes:
        seed: of all that it draws.
    """

    seed: int

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Expose again."""
        generator = torch.Generator().manual_seed(self.seed)
        return CameraNoiseConfig().damage()(picture[None], generator=generator)[0]

    def __str__(self) -> str:
        return "camera noise"


@dataclass(frozen=True)
class Jpeg:
    """Compress.

    Attributes:
        quality: libjpeg's; whole for the codec.
        offset: row and column at which the picture begins in the grid of blocks.
        codec: by the real codec rather than by the same arithmetic in PyTorch.
    """

    quality: float
    offset: tuple[int, int]
    codec: bool = True

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Compress and decompress."""
        if self.codec:
            return jpeg_codec(picture, int(self.quality), offset=self.offset)
        return jpeg(picture[None], self.quality, offset=self.offset)[0]

    def __str__(self) -> str:
        return f"JPEG {self.quality:.0f}"


@dataclass(frozen=True)
class Sharpen:
    """Unsharp masking where there is something to sharpen, with the published settings."""

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Sharpen."""
        return sharpened(picture)

    def __str__(self) -> str:
        return "sharpen"


@dataclass(frozen=True)
class Round:
    """Round to 8-bit levels."""

    def __call__(self, picture: Tensor, low: Size) -> Tensor:  # noqa: ARG002
        """Round, keeping the range."""
        return noise.to_levels(picture)

    def __str__(self) -> str:
        return "8 bits"


def _widths(sigma_1: float, sigma_2: float, angle: float) -> str:
    if sigma_1 == sigma_2:
        return f"σ {sigma_1:.2g}"
    return f"σ {sigma_1:.2g}/{sigma_2:.2g} {math.degrees(angle):.0f}°"
