"""A convolution with a batch norm behind it (Ioffe & Szegedy, arXiv:1502.03167), in use one convolution.

    g (W x + b - μ) / √(σ² + ε) + h  =  (a W) x + (a (b - μ) + h),      a = g / √(σ² + ε)

with μ and σ² the running mean and variance, so that the two agree in evaluation mode only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relume.nn.network import Reparameterisable


class NormedConv(Reparameterisable):
    """A 3×3 convolution and a batch norm: `B C H W` to `B C' H W`.

    Args:
        inputs: C.
        outputs: C'.
        bias: whether the convolution has one, which training does not need, as the norm takes it away.
        dilation: of the convolution.
        eps: ε.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool, dilation: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)
        self.norm = nn.BatchNorm2d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def merged(self) -> nn.Conv2d:
        """Return the one convolution; sums are formed in float64 and rounded once."""
        conv, (gain, shift) = self.conv, self._affine()
        weight = conv.weight.detach().double() * gain[:, None, None, None]
        if conv.bias is not None:
            shift = shift + gain * conv.bias.detach().double()
        dilation = conv.dilation[0]
        merged = nn.Conv2d(
            conv.in_channels, conv.out_channels, 3, padding=dilation, dilation=dilation,
            device=weight.device, dtype=conv.weight.dtype,
        )  # fmt: skip
        merged.weight = nn.Parameter(weight.to(conv.weight))
        merged.bias = nn.Parameter(shift.to(conv.weight))
        return merged

    @torch.no_grad()
    def absorb(self, layer: nn.Module) -> bool:
        """Keep the norm, and let the convolution or, where that has no bias, the norm's shift make it up."""
        if not isinstance(layer, nn.Conv2d) or layer.weight.shape != self.conv.weight.shape:
            return False
        gain, shift = self._affine()
        if layer.bias is None or not gain.all():
            return False
        self.conv.weight.copy_(layer.weight / gain[:, None, None, None])
        if self.conv.bias is not None:
            self.conv.bias.copy_((layer.bias - shift) / gain)
        else:
            self.norm.bias.add_(layer.bias - shift)
        return True

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Return what the norm multiplies by and adds in evaluation mode."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        return gain, norm.bias.detach().double() - gain * norm.running_mean.double()
