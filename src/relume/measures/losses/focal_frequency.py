"""Focal frequency loss: the frequencies that are hardest to get right weigh most.

Jiang, Dai, Wu, Loy, ICCV 2021, arXiv:2012.12821, eq. 8 and 9. With F the orthonormal 2-D Fourier
transform and D = |F(output) - F(target)| at each frequency:

    w = D^α / max D^α   (the maximum of each plane; no gradient through w)
    loss = mean w · D²

Ranges: from 0 up. Shapes: B C H W. Left out: the authors' options of patches, of spectra averaged over the
batch and of a logarithm in w, all off in their paper's runs.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from relume.measures.losses.base import Loss, LossConfig, same_shape
from relume.nn.encoders.opening import LoadNetwork


class FocalFrequencyLossConfig(LossConfig):
    """How strongly hard frequencies are preferred.

    Attributes:
        alpha: α; larger prefers them more.
    """

    name: Literal["focal-frequency"] = "focal-frequency"
    alpha: PositiveFloat = 1.0

    def build(self, load: LoadNetwork) -> Loss:  # noqa: ARG002
        """Return the loss."""
        return lambda output, target: focal_frequency(output, target, alpha=self.alpha)


CONFIG = FocalFrequencyLossConfig


def focal_frequency(output: Tensor, target: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return mean w · D².

    Raises:
        ValueError: the shapes differ or are not `B C H W`.
    """
    same_shape("focal-frequency", output, target)
    difference = torch.view_as_real(torch.fft.fft2(output - target, norm="ortho"))
    squared = difference.square().sum(-1)  # B C H W
    weight = squared.detach() ** (alpha / 2)
    # Of equal planes the maximum is 0; their loss is 0 whatever the weight.
    weight = weight / weight.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight * squared).mean()
