"""Attention from windows to larger ones that overlap (HAT's OCA: Chen et al., CVPR 2023, arXiv:2205.04437).

Each pixel of a window looks at all those of the window and of a frame around it, equation 5. What lies
outside the picture is looked at as well: its keys and values are zeros.

Shapes as in `nn.swin`; a window looks at M = (w + 2o)² pixels, where o is the frame's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relume.nn.swin import Windows, attend, bias_at, linear


class OverlappingAttention(nn.Module):
    """Multi-head attention of windows to themselves with a frame, with a bias for each relative place.

    Args:
        width: C.
        heads: h; C must be a multiple.
        side: w.
        overlap: o, pixels.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(self, width: int, heads: int, side: int, *, overlap: int, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width, bias=qkv_bias)
        self.project = linear(width, width)
        self.bias_table = nn.Parameter(torch.zeros((2 * (side + overlap) - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("places", _places(side, overlap), persistent=False)
        self.places: Tensor

    def forward(self, x: Tensor, own: Windows, wider: Windows) -> Tensor:
        """Map pixels `B P C` to the same.

        Args:
            x: pixels.
            own: the windows that look.
            wider: what they look at, in the same order, with zeros outside the picture.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # B P 3 h d
        bias = bias_at(self.places, self.bias_table)

        def mixed(some: Windows, around: Windows) -> Tensor:
            q = some.cut(qkv, slice(1))[:, :, :, 0].transpose(2, 3)  # B n h N d
            k, v = around.cut(qkv, slice(1, 3)).movedim(4, 2).unbind(4)  # B n h M d
            return attend(q, k, v, bias=bias).transpose(2, 3).flatten(3)

        projected: Tensor = self.project(own.over(qkv, mixed, wider))
        return projected


def _places(side: int, overlap: int) -> Tensor:
    """Return the number of the relative place of each pixel and each that it looks at, `N M`."""
    own, wider = torch.arange(side), torch.arange(side + 2 * overlap)
    along = wider - own[:, None] + side - 1  # w w+2o
    count = 2 * (side + overlap) - 1
    places = along[:, None, :, None] * count + along[None, :, None, :]  # w w w+2o w+2o
    return places.flatten(2).flatten(0, 1)
