"""Neighbouring linear layers as one: exact, for use only (nothing is trained in this form).

Sums are formed in float64 and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relume.nn.norms import LayerNorm2d


def behind_norm(norm: LayerNorm2d, conv: nn.Conv2d) -> nn.Conv2d:
    """Return the 1×1 convolution that takes over a layer norm's affine.

    W(g ⊙ n + h) + b = (W diag g) n + (W h + b).

    Args:
        norm: gain g and shift h for each channel.
        conv: 1×1 convolution right behind it.
    """
    weight = _matrix(conv)
    bias = weight @ norm.bias.double() + _bias(conv)
    return _conv(conv, weight * norm.weight.double(), bias)


def centred(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the 1×1 convolution that takes over the centring before it.

    W(x - mean x) = (W - row means of W) x.
    """
    weight = _matrix(conv)
    return _conv(conv, weight - weight.mean(1, keepdim=True), _bias(conv))


def before_scale(conv: nn.Conv2d, scale: Tensor) -> nn.Conv2d:
    """Return the 1×1 convolution that takes over a factor for each of its output channels."""
    scale = scale.detach().double()
    return _conv(conv, scale[:, None] * _matrix(conv), scale * _bias(conv))


def with_skip(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the 1×1 convolution that takes over the skip around it: W x + b + x = (W + I) x + b."""
    weight = _matrix(conv)
    return _conv(conv, weight + torch.eye(weight.shape[0], dtype=weight.dtype), _bias(conv))


def _matrix(conv: nn.Conv2d) -> Tensor:
    if conv.kernel_size != (1, 1) or conv.groups != 1:
        raise ValueError(f"only plain 1×1 convolutions fold, not {conv}")
    return conv.weight.detach().double().flatten(1)  # out in


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels).double() if conv.bias is None else conv.bias.detach().double()


def _conv(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(like.in_channels, like.out_channels, 1).requires_grad_(False)
    conv.weight.copy_(weight[:, :, None, None])
    conv.bias.copy_(bias)  # type: ignore[union-attr]
    return conv
