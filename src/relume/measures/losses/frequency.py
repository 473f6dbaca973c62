"""Distance of spectra: blur and ringing are far apart there, though nearly the same pixel by pixel.

With F the orthonormal 2-D Fourier transform of each plane (the half that a real picture has, `rfft2`):

    complex    mean |Re F(output) - Re F(target)| and |Im …|, the mean over both parts
               (Cho et al., MIMO-UNet, arXiv:2108.05054, eq. 5)
    magnitude  mean ||F(output)| - |F(target)||: shifts cost nothing, only what is there counts
               (the magnitude half of Fuoli et al., arXiv:2106.00783, eq. 4)

Orthonormal, so that a loss does not grow with the patch; MIMO-UNet's code leaves the transform unscaled.
Ranges: from 0 up. Shapes: B C H W.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from relume.measures.losses.base import Loss, LossConfig, same_shape
from relume.nn.encoders.opening import LoadNetwork


class FrequencyLossConfig(LossConfig):
    """Which part of the spectrum is compared.

    Attributes:
        part: "complex" (phase as well) or "magnitude".
    """

    name: Literal["frequency"] = "frequency"
    part: Literal["complex", "magnitude"] = "complex"

    def build(self, load: LoadNetwork) -> Loss:  # noqa: ARG002
        """Return the loss."""
        return complex_distance if self.part == "complex" else magnitude_distance


CONFIG = FrequencyLossConfig


def complex_distance(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of real and imaginary parts.

    Raises:
        ValueError: the shapes differ or are not `B C H W`.
    """
    same_shape("frequency", output, target)
    # The transform is linear: one, of the difference, does for both.
    return torch.view_as_real(torch.fft.rfft2(output - target, norm="ortho")).abs().mean()


def magnitude_distance(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of magnitudes.

    Raises:
        ValueError: the shapes differ or are not `B C H W`.
    """
    same_shape("frequency", output, target)
    first, second = (torch.fft.rfft2(picture, norm="ortho").abs() for picture in (output, target))
    return F.l1_loss(first, second)
