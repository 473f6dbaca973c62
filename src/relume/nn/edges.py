"""A depthwise convolution that learns with fixed edge filters beside it, and is used without them.

Wu, Jiang, Jiang, Liu, IEEE TIP 2024, arXiv:2401.05633 (CFSR's edge-preserving feed-forward network).
Shapes: B batch, C channels, H W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.nn.network import Reparameterisable

EDGE_MASKS: dict[str, tuple[tuple[tuple[int, int, int], ...], ...]] = {
    # Sobel-x, Sobel-y, Laplacian
    "textbook": (
        ((1, 0, -1), (2, 0, -2), (1, 0, -1)),
        ((1, 2, 1), (0, 0, 0), (-1, -2, -1)),
        ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
    ),
    "authors": (
        ((0, 1, -1), (2, 0, -2), (1, 0, -1)),
        ((1, 2, 1), (0, 0, 0), (-1, -2, -1)),
        ((1, 0, 0), (1, -4, 1), (0, 1, 0)),
    ),
}
"""The three masks of each name; "authors" has two that are off by one index, as in their code."""


class EdgeConv(Reparameterisable):
    """Depthwise 3×3 convolution plus three fixed edge filters of learnt strength (the paper's EFN).

    K = W + α·Sobel-x + β·Sobel-y + γ·Laplacian for each channel, b the sum of the four biases.
    """

    def __init__(self, channels: int, *, masks: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        filters = torch.tensor(EDGE_MASKS[masks], dtype=torch.float32)  # 3 3 3
        self.register_buffer("masks", filters[:, None, None].repeat(1, channels, 1, 1, 1))  # 3 C 1 3 3
        self.strengths = nn.Parameter(torch.randn(3, channels, 1, 1, 1) * 1e-3)
        self.biases = nn.Parameter(torch.randn(3, channels) * 1e-3)
        self.masks: Tensor

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Return the summed kernel `C 1 3 3` and bias `C`."""
        return self.conv.weight + (self.strengths * self.masks).sum(0), self._bias() + self.biases.sum(0)

    def _bias(self) -> Tensor:
        assert self.conv.bias is not None
        return self.conv.bias

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.kernel()
        return F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])

    def merged(self) -> nn.Conv2d:
        """Return the plain depthwise convolution with the summed kernel."""
        channels = self.conv.out_channels
        weight, bias = self.kernel()
        conv = nn.Conv2d(
            channels, channels, 3, padding=1, groups=channels, device=weight.device, dtype=weight.dtype
        )
        conv.weight = nn.Parameter(weight.detach().clone())
        conv.bias = nn.Parameter(bias.detach().clone())
        return conv

    @torch.no_grad()
    def absorb(self, layer: nn.Module) -> bool:
        """Keep the edge branches and let the free kernel make up the difference to `layer`."""
        if not isinstance(layer, nn.Conv2d) or layer.weight.shape != self.conv.weight.shape:
            return False
        assert layer.bias is not None
        self.conv.weight.copy_(layer.weight - (self.strengths * self.masks).sum(0))
        self._bias().copy_(layer.bias - self.biases.sum(0))
        return True
