"""Large depthwise convolution with a weight gradient that is fast on a CPU.

The CPU kernels behind PyTorch have a quick weight gradient for 3×3 depthwise
convolutions only (40 times quicker than 9×9, for 9 times less work). The
gradient of a k×k kernel is a grid of gradients of 3×3 kernels, each over the
input moved by its place in the grid; `benchmarks/training_step.py` measures it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_BLOCK = 3


class LargeDepthwiseConv2d(nn.Conv2d):
    """Depthwise k×k convolution of stride 1 that keeps the size; a drop-in `nn.Conv2d`.

    Args:
        channels: C of the `B C H W` input and output.
        kernel_size: k, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return large_depthwise(x, self.weight, self.bias)


def large_depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve `B C H W` channel by channel with kernels `C 1 k k`, k odd; the size stays."""
    learns = torch.is_grad_enabled() and weight.requires_grad
    if learns and x.device.type == "cpu" and not torch.compiler.is_compiling():
        output: Tensor = _BlockwiseGradient.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return output
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])


class _BlockwiseGradient(torch.autograd.Function):
    """The same convolution; its weight gradient is put together from 3×3 blocks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = x.to(weight.dtype)
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])

    @staticmethod
    @once_differentiable
    @torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
    def backward(  # type: ignore[override]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        # Under autocast the output, and so its gradient, has another type than the saved input.
        gradient = gradient.to(x.dtype)
        channels, _, kernel, _ = weight.shape
        reach, groups = kernel // 2, channels
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        grad_x = None
        if ctx.needs_input_grad[0]:
            # The gradient of a "same" depthwise convolution is the convolution with the kernel turned round.
            grad_x = F.conv2d(gradient, weight.flip(2, 3), padding=reach, groups=groups)
        starts = range(0, kernel, _BLOCK)
        height, width = x.shape[-2] + _BLOCK - 1, x.shape[-1] + _BLOCK - 1
        overhang = starts[-1] + _BLOCK - kernel
        padded = F.pad(x, (reach, reach + overhang, reach, reach + overhang))
        block = weight.new_empty(channels, 1, _BLOCK, _BLOCK)
        rows = []
        for top in starts:
            row = [
                torch.ops.aten.convolution_backward(
                    gradient, padded[..., top : top + height, left : left + width], block, None,
                    [1, 1], [0, 0], [1, 1], False, [0, 0], groups, [False, True, False],
                )[1]
                for left in starts
            ]  # fmt: skip
            rows.append(torch.cat(row, dim=3))
        grad_weight = torch.cat(rows, dim=2)[:, :, :kernel, :kernel]
        return grad_x, grad_weight, gradient.sum((0, 2, 3))
