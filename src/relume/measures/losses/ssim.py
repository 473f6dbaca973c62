"""Structural similarity as a loss: 1 - SSIM, the SSIM of `measures.ssim`, differentiable.

Wang et al., IEEE TIP 13(4), 2004, eq. 13; as a loss Zhao et al., arXiv:1511.08861, eq. 8. The 11 × 11
Gaussian window lies wholly inside the picture; planes and positions are averaged.

Ranges: 0 (equal) to 2, for values in 0 .. `peak`. Shapes: B C H W, sides of at least 11.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from relume.core.errors import ConfigError
from relume.measures.losses.base import Loss, LossConfig, same_shape
from relume.measures.ssim import WINDOW
from relume.nn.encoders.opening import LoadNetwork

_SIGMA, _K1, _K2 = 1.5, 0.01, 0.03


class SSIMLossConfig(LossConfig):
    """The values' peak.

    Attributes:
        peak: the largest value a pixel can have.
    """

    name: Literal["ssim"] = "ssim"
    peak: PositiveFloat = 1.0

    def build(self, load: LoadNetwork) -> Loss:  # noqa: ARG002
        """Return the loss."""
        return lambda output, target: ssim_loss(output, target, peak=self.peak)


CONFIG = SSIMLossConfig


def ssim_loss(output: Tensor, target: Tensor, *, peak: float = 1.0) -> Tensor:
    """Return 1 - SSIM.

    Raises:
        ValueError: the shapes differ or are not `B C H W`.
        ConfigError: a side is shorter than the window.
    """
    same_shape("ssim", output, target)
    if min(output.shape[-2:]) < WINDOW:
        raise ConfigError(
            f"the ssim loss needs patches of {WINDOW} pixels a side, got "
            f"{output.shape[-1]}×{output.shape[-2]}; raise data.patch"
        )
    luminance, structure = similarity(output, target, peak=peak)
    return 1 - (luminance * structure).mean()


def similarity(output: Tensor, target: Tensor, *, peak: float) -> tuple[Tensor, Tensor]:
    """Return the two factors of SSIM at each place: luminance, and contrast with structure.

    Returns:
        Two tensors `B C H-10 W-10`.
    """
    pictures = torch.stack([output, target, output * output, target * target, output * target])
    mean_x, mean_y, square_x, square_y, product = _blurred(pictures)
    variances = square_x + square_y - mean_x * mean_x - mean_y * mean_y
    covariance = product - mean_x * mean_y
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def _blurred(x: Tensor) -> Tensor:
    """Weigh by the Gaussian window where it fits: `… H W` to `… H-10 W-10`."""
    position = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-position.square() / (2 * _SIGMA**2))
    window = window / window.sum()
    planes = x.reshape(-1, 1, *x.shape[-2:])
    planes = F.conv2d(F.conv2d(planes, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return planes.view(*x.shape[:-2], *planes.shape[-2:])
