"""Attention in rectangular windows, lying for half of the channels and standing for the others.

Introduced by CAT (Chen et al., NeurIPS 2022, arXiv:2211.13654, section 3.2), as CRAFT and RGT use it: the
two halves look along different sides, the bias of relative places comes from a small network (CrossFormer:
Wang et al., ICLR 2022, arXiv:2108.00154, figure 3), and a depthwise convolution of the values adds what is
near.

Shapes: B batch, C width, H W size in pixels, P = H · W pixels, n windows, N pixels of a window, h heads of a
half, d = C / 2h.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relume.nn.pieces import by_rows
from relume.nn.swin import (
    Windows,
    attend,
    bias_at,
    linear,
    pictured,
    pixels_of,
    relative_places,
    windows_of,
)  # fmt: skip

Pair = tuple[Windows, Windows]
"""Lying and standing windows of one picture."""


def rectangles_of(
    height: int,
    width: int,
    sides: tuple[int, int],
    *,
    shifted: bool,
    masked: bool,
    filled: bool,
    like: Tensor,
) -> Pair:
    """Cut a picture into rectangles of a height and width, and into such of the same turned by 90°.

    Args:
        height: H.
        width: W.
        sides: of a lying window; the standing one has them the other way round.
        shifted: whether they lie half of each side further down and right.
        masked: see `nn.swin.windows_of`.
        filled: whether the picture is filled up by zeros to multiples of the longer side.
        like: see there.
    """

    def windows(side: tuple[int, int]) -> Windows:
        shift = (side[0] // 2, side[1] // 2) if shifted else 0
        multiple = max(sides) if filled else None
        return windows_of(height, width, side, shift=shift, masked=masked, filled_to=multiple, like=like)

    return windows(sides), windows((sides[1], sides[0]))


class PlaceBias(nn.Module):
    """A bias for each head and relative place, from a small network of the place's rows and columns.

    Of one channel it gives each head one constant, which a softmax does not notice: a norm over a single
    number leaves nothing of it.

    Args:
        width: channels of the network.
        heads: h.
        side: height and width of a window.
    """

    def __init__(self, width: int, heads: int, side: tuple[int, int]) -> None:
        super().__init__()
        self.enter = linear(2, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.layers = nn.ModuleList(linear(width, to) for to in (width, width, heads))
        tall, wide = side
        down, right = torch.arange(1 - tall, tall), torch.arange(1 - wide, wide)
        offsets = torch.stack(torch.meshgrid(down, right, indexing="ij"), -1).flatten(0, 1)
        self.register_buffer("offsets", offsets.float(), persistent=False)
        self.register_buffer("places", relative_places(tall, wide), persistent=False)
        self.offsets: Tensor
        self.places: Tensor

    def forward(self) -> Tensor:
        """Return the bias, `h N N`."""
        x = self.enter(self.offsets)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = layer(torch.relu(norm(x)))
        table: Tensor = x
        return bias_at(self.places, table)


class RectangleAttention(nn.Module):
    """Multi-head attention in lying and standing windows by halves, with what is near added to it.

    Args:
        width: C.
        heads: of both halves together, 2h.
        sides: height and width of a lying window.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(self, width: int, heads: int, sides: tuple[int, int], *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads // 2
        self.qkv = linear(width, 3 * width, bias=qkv_bias)
        self.places = nn.ModuleList(
            # The authors' width: a quarter of a quarter of the half's.
            PlaceBias(width // 2 // 4 // 4, heads // 2, side)
            for side in (sides, (sides[1], sides[0]))
        )
        self.near = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.project = linear(width, width)

    def forward(self, x: Tensor, pair: Pair, like: Tensor, *, norm: nn.LayerNorm) -> Tensor:
        """Map pixels `B P C` of a picture of the size of `like` to the same.

        Args:
            x: pixels.
            pair: windows.
            like: a picture.
            norm: what pixels go through first; from outside, its result would stay until all is done.
        """
        lying, standing, values = (pictured(part, like) for part in self._attended(x, pair, norm))
        return pixels_of(by_rows(self._joined, lying, standing, values, halo=1))

    def _attended(self, x: Tensor, pair: Pair, norm: nn.LayerNorm) -> tuple[Tensor, Tensor, Tensor]:
        """Return what each half sees, `B P C/2`, and the values, `B P C`."""
        qkv = self.qkv(norm(x))
        halves = qkv.unflatten(-1, (6, self.heads, -1))  # B P 6 h d: queries of each half, keys, values
        lying, standing = (self._half(which, halves, pair[which]) for which in range(2))
        # A copy, which the convolution would else make, so that queries and keys need not stay.
        return lying, standing, qkv.chunk(3, -1)[2].contiguous()

    def _joined(self, lying: Tensor, standing: Tensor, values: Tensor) -> Tensor:
        mixed = torch.cat([lying, standing], 1) + self.near(values)
        projected: Tensor = self.project(pixels_of(mixed))
        return pictured(projected, values)

    def _half(self, which: int, halves: Tensor, windows: Windows) -> Tensor:
        bias = self.places[which]()

        def mixed(some: Windows) -> Tensor:
            parts = some.cut(halves, slice(which, None, 2))  # B n N 3 h d
            q, k, v = parts.movedim(2, 4).unbind(2)  # B n h N d
            return attend(q, k, v, bias=bias, windows=some).transpose(2, 3).flatten(3)

        return windows.over(halves, mixed)


OFFICIAL_NAMES = (
    (r"\.attns\.(\d)\.pos\.pos_proj\.", r".places.\1.enter."),
    (r"\.attns\.(\d)\.pos\.pos([123])\.0\.", r".places.\1.norms.\2."),
    (r"\.attns\.(\d)\.pos\.pos([123])\.2\.", r".places.\1.layers.\2."),
    (r"(\.places\.\d\.(?:norms|layers))\.1\.", r"\1.0."),
    (r"(\.places\.\d\.(?:norms|layers))\.2\.", r"\1.1."),
    (r"(\.places\.\d\.(?:norms|layers))\.3\.", r"\1.2."),
)
"""Names that CRAFT's and RGT's authors share, in the order in which they are replaced, and ours."""


def sides_of(table: Tensor) -> tuple[int, int]:
    """Read a window's height and width off an authors' table of relative places, `N N`.

    Along a row of the window its numbers fall by one, and to the next row by more.
    """
    first = table[0]
    row = first == first[0] - torch.arange(len(first), device=first.device)
    wide = int(row.cumprod(0).sum())
    return len(first) // wide, wide
