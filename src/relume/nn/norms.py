"""Normalisation layers over channels of a picture-shaped tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel (ConvNeXt, arXiv:2201.03545, "channels first").

    Computed by the fused kernel over a permuted view: with channels-last memory
    the view is contiguous and nothing is copied.

    Args:
        channels: C of the `B C H W` input.
        eps: added to the variance.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            # Other runtimes are quicker with the sums themselves than with a norm between permutations.
            x = x - x.mean(1, keepdim=True)
            x = x / torch.sqrt(x.square().mean(1, keepdim=True) + self.eps)
            return self.weight[:, None, None] * x + self.bias[:, None, None]
        x = x.permute(0, 2, 3, 1)  # B H W C
        x = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)  # B C H W
