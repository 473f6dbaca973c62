"""Linear layers over the channels of each pixel, in half the time on many CPUs.

PyTorch has two libraries to multiply single-precision matrices on x86. Linear layers, and 1×1 convolutions
of few pictures by a single thread, go to MKL, which leaves the widest vectors of processors that are not
Intel's unused; other convolutions go to oneDNN, which uses them (`benchmarks/transformers.py`). So pixels are
handed over as those of many small pictures to convolve. In channels-last memory that moves no number.

Shapes: B batch, C D channels before and after, H W size in pixels, P any number of pixels.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TWO_LIBRARIES = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
_PICTURES = range(16, 1025)
"""How many pictures pixels may be shared out to; from so many on, one thread convolves by oneDNN, too."""
_LEAST = 1 << 22
"""Multiplications from which on it pays."""


def pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return W x + b for each pixel of `… C`, `… D`, as `F.linear` does.

    Args:
        x: pixels.
        weight: W, `D C`.
        bias: b, `D`.
    """
    worth_it = _by_convolution(x) and x.numel() * len(weight) >= _LEAST
    pictures = _pictures(x.shape[:-1].numel()) if worth_it else None
    if pictures is None:
        return F.linear(x, weight, bias)
    shared_out = x.reshape(pictures, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # pictures C 1 P
    mixed = F.conv2d(shared_out, weight[:, :, None, None], bias)
    return mixed.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def _by_convolution(x: Tensor) -> bool:
    # Programs for other runtimes are to have plain layers, and compilers choose for themselves.
    written_out = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return _TWO_LIBRARIES and not written_out and x.device.type == "cpu" and x.dtype == torch.float32


@cache
def _pictures(pixels: int) -> int | None:
    """Return the least number of pictures that share so many pixels evenly; None: there is none."""
    return next((count for count in _PICTURES if pixels % count == 0), None)


class PixelLinear(nn.Linear):
    """A drop-in `nn.Linear` for pixels, `… C` to `… D`."""

    def forward(self, x: Tensor) -> Tensor:
        return pixelwise(x, self.weight, self.bias)


class PixelConv2d(nn.Conv2d):
    """A drop-in 1×1 `nn.Conv2d`, `B C H W` to `B D H W`, that is quick in channels-last memory.

    Args:
        channels: C.
        to: D.
        bias: whether it has one.
    """

    def __init__(self, channels: int, to: int, *, bias: bool = True) -> None:
        super().__init__(channels, to, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # B H W C
        if not (_by_convolution(x) and pixels.is_contiguous()):
            return super().forward(x)
        return pixelwise(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
