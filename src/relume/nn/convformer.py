"""A ConvFormer network in the form for use alone: everything linear and adjacent is one layer.

Layer scales go into the convolution before them, a norm's affine into the 1×1
convolution behind it, and a stage's closing 1×1 convolution takes over its skip.
What remains is a chain of three kinds of layers, which `nn.native` runs as fused
kernels. Shapes: B batch, C picture channels, N width, rN hidden width, s scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FoldedMixer(nn.Module):
    """x + W₃(spread(gelu(W₁ n)) ⊙ W₂ n), n the normed x without affine.

    Args:
        query: W₁ with the norm's affine.
        spread: depthwise k×k convolution.
        value: W₂ with the norm's affine.
        project: W₃ with the layer scale.
        eps: of the norm.
    """

    def __init__(
        self, *, query: nn.Conv2d, spread: nn.Conv2d, value: nn.Conv2d, project: nn.Conv2d, eps: float
    ) -> None:
        super().__init__()
        self.query, self.spread, self.value, self.project = query, spread, value, project
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normed = _normed(x, self.eps)
        return x + self.project(self.spread(F.gelu(self.query(normed))) * self.value(normed))


class FoldedFeedForward(nn.Module):
    """x + W₂(h + gelu(local(h))), h = gelu(W₁ n), n the normed x without affine.

    Args:
        expand: W₁ with the norm's affine, N to rN.
        local: depthwise 3×3 convolution.
        contract: W₂ with the layer scale, rN to N.
        eps: of the norm.
    """

    def __init__(self, *, expand: nn.Conv2d, local: nn.Conv2d, contract: nn.Conv2d, eps: float) -> None:
        super().__init__()
        self.expand, self.local, self.contract = expand, local, contract
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.expand(_normed(x, self.eps)))
        return x + self.contract(hidden + F.gelu(self.local(hidden)))


class FoldedConvFormer(nn.Module):
    """A 3×3 convolution, folded layers, a norm and a 3×3 convolution with a long skip, sub-pixels.

    Takes `B C H W` with values 0..1 and gives `B C sH sW`.

    Args:
        mean: C 1 1, subtracted from the input and added to the output.
        shallow: 3×3, C to N.
        layers: mixers, feed-forward layers and closing 1×1 convolutions, in order.
        norm: before `fuse`; zero padding keeps its affine from folding.
        fuse: 3×3, N to N.
        reconstruct: 3×3, N to s²C.
        scale: s.
    """

    def __init__(
        self,
        *,
        mean: Tensor,
        shallow: nn.Conv2d,
        layers: list[nn.Module],
        norm: nn.Module,
        fuse: nn.Conv2d,
        reconstruct: nn.Conv2d,
        scale: int,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean.detach().clone())
        self.mean: Tensor
        self.shallow, self.layers, self.norm = shallow, nn.ModuleList(layers), norm
        self.fuse, self.reconstruct = fuse, reconstruct
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow((x - self.mean).contiguous(memory_format=torch.channels_last))
        deep = shallow
        for layer in self.layers:
            deep = layer(deep)
        deep = self.fuse(self.norm(deep)) + shallow
        return F.pixel_shuffle(self.reconstruct(deep), self.scale) + self.mean


def _normed(x: Tensor, eps: float) -> Tensor:
    if torch.compiler.is_exporting():
        # Other runtimes are quicker with the sums themselves than with a norm between two permutations.
        x = x - x.mean(1, keepdim=True)
        return x / torch.sqrt(x.square().mean(1, keepdim=True) + eps)
    x = x.permute(0, 2, 3, 1)  # B H W N
    return F.layer_norm(x, x.shape[-1:], eps=eps).permute(0, 3, 1, 2)
