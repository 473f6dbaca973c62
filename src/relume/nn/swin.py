"""Attention inside shifted windows (Liu et al., ICCV 2021, arXiv:2103.14030), as restoration networks use it.

A picture of features is cut into windows; each pixel attends to those of its own window. Every second layer
cuts them half a window further down and right, so that neighbours meet. What leaves at one border enters at
the opposite one; a mask keeps apart pixels that meet only so.

Shapes: B batch, H W size in pixels (multiples of the window's side), P = H · W pixels, C width, w window's
side, N = w² pixels of a window, n windows, h heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.nn.padding import mirrored_to_multiple

_APART = -100.0
"""Added to the logits of pixels that are not to see each other, as in the authors' code."""


class Windows(NamedTuple):
    """How the pixels of a picture lie in windows.

    Attributes:
        order: which pixel comes where, window by window, `P`.
        back: where each pixel went, `P`.
        mask: added to the logits, `n 1 N N`: 0 for pixels that may see each other; None: all may.
    """

    order: Tensor
    back: Tensor
    mask: Tensor | None

    def cut(self, x: Tensor, size: int) -> Tensor:
        """Bring pixels, `B P C`, into windows of `size` pixels, `B n N C`."""
        return x.index_select(1, self.order).unflatten(1, (-1, size))

    def joined(self, windows: Tensor) -> Tensor:
        """Bring windows, `B n N C`, back to pixels, `B P C`."""
        return windows.flatten(1, 2).index_select(1, self.back)


def windows_of(
    height: int, width: int, side: int, *, shift: int = 0, masked: bool = True, like: Tensor
) -> Windows:
    """Cut a picture into windows.

    Args:
        height: H.
        width: W.
        side: w.
        shift: pixels by which the windows lie further down and right.
        masked: whether pixels that were no neighbours before a shift are kept apart.
        like: a tensor of the device, and for the mask of the type, wanted.
    """
    place = torch.arange(height * width, device=like.device)
    window, inside = place // side**2, place % side**2
    columns = width // side
    row = window // columns * side + inside // side
    column = window % columns * side + inside % side
    order = (row + shift) % height * width + (column + shift) % width
    back = torch.zeros_like(order).scatter(0, order, place)
    if not (shift and masked):
        return Windows(order, back, None)
    # Along each side the last windows hold two parts, the second of which came from the other border.
    part = 2 * (row >= height - shift) + (column >= width - shift)
    part = part.unflatten(0, (-1, side**2))  # n N
    strangers = part[:, :, None] != part[:, None, :]
    return Windows(order, back, strangers[:, None].to(like.dtype) * _APART)


def filled_to_windows(x: Tensor, side: int) -> Tensor:
    """Continue `B C H W` mirrored, its border not repeated, below and to the right, to whole windows.

    Not to more than one where one holds all: what is shifted into a second window would be seen.
    """
    return mirrored_to_multiple(x, side, singly=True)


class WindowAttention(nn.Module):
    """Multi-head attention within windows: softmax(Q Kᵀ / √d + bias of the relative places) V.

    Args:
        width: C.
        heads: h; C must be a multiple.
        side: w.
        positions: whether each head learns a bias for each relative place; else the order of pixels is lost.
    """

    def __init__(self, width: int, heads: int, side: int, *, positions: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = _linear(width, 3 * width)
        self.project = _linear(width, width)
        self.bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads)) if positions else None
        if self.bias_table is not None:
            nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("places", _relative_places(side), persistent=False)
        self.places: Tensor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map windows `B n N C` to the same, with a mask `n 1 N N` added to the logits."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).movedim(-2, 2).unbind(4)  # B n h N d
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # B n h N N
        if self.bias_table is not None:
            logits = logits + self.bias_table[self.places].movedim(-1, 0)
        if mask is not None:
            logits = logits + mask
        mixed: Tensor = self.project((logits.softmax(-1) @ v).transpose(2, 3).flatten(3))
        return mixed


def _linear(width: int, to: int) -> nn.Linear:
    layer = nn.Linear(width, to)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def _relative_places(side: int) -> Tensor:
    """Return, for each two pixels of a window, the number of their relative place, `N N`."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    down, right = (place.flatten()[:, None] - place.flatten()[None] + side - 1 for place in (row, column))
    return down * (2 * side - 1) + right


class SwinLayer(nn.Module):
    """Attention in windows, then a feed-forward network, each behind a norm and with a skip (eq. 3).

    Args:
        width: C.
        heads: h.
        side: w.
        ratio: hidden width of the feed-forward network over C.
        positions: see `WindowAttention`.
    """

    def __init__(self, width: int, heads: int, side: int, *, ratio: float, positions: bool = True) -> None:
        super().__init__()
        self.size = side**2
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, side, positions=positions)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.expand = _linear(width, int(width * ratio))
        self.contract = _linear(int(width * ratio), width)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Map pixels `B P C` to the same."""
        cut = windows.cut(self.attention_norm(x), self.size)
        x = x + windows.joined(self.attention(cut, windows.mask))
        return x + self.contract(F.gelu(self.expand(self.feed_forward_norm(x))))
