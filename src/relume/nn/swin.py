"""Attention inside windows of a picture, shifted or overlapping (Liu et al., ICCV 2021, arXiv:2103.14030).

A picture of features is cut into windows; each pixel attends to those of its own window. Some layers cut
them half a window further down and right, so that neighbours meet. What leaves at one border enters at the
opposite one; a mask keeps apart pixels that meet only so. Windows that overlap serve as what pixels look at,
see `nn.overlapping`; windows need not be square, see `nn.rectangles`.

Shapes: B batch, H W size in pixels, P = H · W pixels, C width, w window's side, N = w² pixels of a window,
M of the one that it looks at, n windows, h heads, d = C / h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.nn.padding import mirrored_to_multiple
from relume.nn.pieces import PIXELS, by_pixels, in_pieces_pays
from relume.nn.pixelwise import PixelLinear

Closing = nn.Conv2d | nn.Sequential | nn.Identity

_APART = -100.0
"""Added to the logits of pixels that are not to see each other, as in the authors' code."""


class Windows(NamedTuple):
    """How the pixels of a picture lie in windows.

    Attributes:
        order: which pixel comes where, window by window, `n·N`; P is a pixel outside.
        back: where each pixel went, `P`; of windows that overlap, where in its own.
        size: N.
        zeros: whether pixels outside, which are zeros, occur.
        mask: added to the logits, `k 1 N N`: 0 for pixels that may see each other; None: all may.
        counts: how many windows, in their order, have each of the k masks; None: each window has one.
    """

    order: Tensor
    back: Tensor
    size: int
    zeros: bool
    mask: Tensor | None
    counts: tuple[int, ...] | None

    def cut(self, x: Tensor, parts: slice | None = None) -> Tensor:
        """Bring pixels into windows.

        Args:
            x: `B P …`.
            parts: which of x, `B P m …`, are wanted; None: x has no parts.

        Returns:
            `B n N …`.
        """
        if torch.compiler.is_exporting():
            x = x if parts is None else x[:, :, parts]
            if self.zeros:
                x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
            return x.index_select(1, self.order).unflatten(1, (-1, self.size))
        pixels = x.shape[1]
        order = self.order.clamp(max=pixels - 1) if self.zeros else self.order
        if parts is None:
            rows = x.index_select(1, order)
        else:  # other parts are not even copied
            chosen = torch.arange(x.shape[2], device=x.device)[parts]
            rows = x.flatten(1, 2).index_select(1, (order[:, None] * x.shape[2] + chosen).flatten())
            rows = rows.unflatten(1, (-1, len(chosen)))
        if self.zeros:
            outside = (self.order == pixels).view(-1, *(1,) * (rows.ndim - 2))
            rows = rows.masked_fill(outside, 0)
        return rows.unflatten(1, (-1, self.size))

    def joined(self, windows: Tensor) -> Tensor:
        """Bring windows, `B n N C`, back to pixels, `B P C`."""
        return windows.flatten(1, 2).index_select(1, self.back)

    def over(self, x: Tensor, function: Callable[..., Tensor], *beside: Windows) -> Tensor:
        """Return what a function makes of all windows, as pixels; it is given few at a time where that pays.

        Args:
            x: pixels `B P …`, which tell how many there are, and where.
            function: takes windows, and those beside them, and returns what it makes of them, `B n N C`.
            beside: as many other windows, each with one of these.

        Returns:
            `B P C`.
        """
        if not in_pieces_pays(x):
            return self.joined(function(self, *beside))
        output: Tensor | None = None
        many = max(1, PIXELS // self.size)
        for some in zip(self._few(many), *(other._few(many) for other in beside), strict=True):
            mapped = function(*some).flatten(1, 2)
            if output is None:
                # One row more takes what there is of pixels outside.
                output = mapped.new_empty(len(x), x.shape[1] + self.zeros, mapped.shape[2])
            output.index_copy_(1, some[0].order, mapped)
        assert output is not None
        return output[:, : x.shape[1]]

    def _few(self, many: int) -> Iterator[Windows]:
        """Give the windows in their order, at most so many at a time, all with one mask, or none."""
        start = 0
        for kind, count in enumerate(self.counts or (len(self.order) // self.size,)):
            mask = None if self.mask is None else self.mask[kind : kind + 1]
            for done in range(0, count, many):
                number = min(many, count - done)
                order = self.order[start : start + number * self.size]
                start += number * self.size
                yield self._replace(order=order, mask=mask, counts=None if mask is None else (number,))


def windows_of(
    height: int, width: int, side: int | tuple[int, int], *, shift: int | tuple[int, int] = 0,
    masked: bool = True, overlap: int = 0, filled_to: int | None = None, like: Tensor,
) -> Windows:  # fmt: skip
    """Cut a picture into windows.

    They are in reading order, but where masks are used: then first those that need none, next those at the
    right border, those at the lower, and the one at both, so that windows with one mask lie together.

    Args:
        height: H.
        width: W.
        side: w, or the windows' height and width.
        shift: pixels by which the windows lie further down and right.
        masked: whether pixels that were no neighbours before a shift are kept apart.
        overlap: pixels by which windows reach beyond their own on each side; such are not shifted, and what
            they hold beyond the picture is zeros.
        filled_to: what the picture's sides are filled up to multiples of, by zeros; itself a multiple of the
            windows' sides. None: they are whole windows.
        like: a tensor of the device, and for the mask of the type, wanted.
    """
    tall, wide = (side, side) if isinstance(side, int) else side
    down, right = (shift, shift) if isinstance(shift, int) else shift
    multiple = filled_to or 1
    rows = (height + multiple - 1) // multiple * multiple // tall
    columns = (width + multiple - 1) // multiple * multiple // wide
    number = torch.arange(rows * columns, device=like.device)
    mask = counts = None
    rank = number
    if masked and (down or right):
        mask = _masks((tall, wide), (down, right), like)
        row, column = _places_of(number, columns)
        kind = 2 * (row == rows - 1) + (column == columns - 1)
        if torch.compiler.is_exporting():  # how many there are of each varies with the picture
            mask = mask.index_select(0, kind)
        else:
            counts = ((rows - 1) * (columns - 1), rows - 1, columns - 1, 1)
            number = kind.argsort(stable=True)
            rank = number.argsort()
    inside = [torch.arange(-overlap, length + overlap, device=like.device) for length in (tall, wide)]
    row, column = _places_of(number, columns)
    row = (row * tall)[:, None, None] + inside[0][:, None]  # n N/w 1
    column = (column * wide)[:, None, None] + inside[1]  # n 1 w
    if down or right:
        row, column = _within(row + down, rows * tall), _within(column + right, columns * wide)
    order = row * width + column
    beyond = filled_to and (torch.compiler.is_exporting() or height % filled_to or width % filled_to)
    zeros = bool(overlap or beyond)
    if zeros:
        outside = (row < 0) | (row >= height) | (column < 0) | (column >= width)
        order = torch.where(outside, height * width, order)
    place = torch.arange(height * width, device=like.device)
    row, column = _places_of(place, width)
    if down or right:
        row = _within(row + (rows * tall - down), rows * tall)
        column = _within(column + (columns * wide - right), columns * wide)
    window = rank[row // tall * columns + column // wide]
    at = (row % tall + overlap) * (wide + 2 * overlap) + column % wide + overlap
    size = (tall + 2 * overlap) * (wide + 2 * overlap)
    return Windows(order.flatten(), window * size + at, size, zeros, mask, counts)


def _places_of(number: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Return the row and column of what is numbered in reading order."""
    row = number // columns
    # ONNX has no remainder by a computed number.
    return row, number - row * columns


def _within(place: Tensor, length: int) -> Tensor:
    """Let places up to one length too far begin anew."""
    return torch.where(place >= length, place - length, place)


def _masks(side: tuple[int, int], shift: tuple[int, int], like: Tensor) -> Tensor:
    """Return the masks of windows inside, at the right border, at the lower, and at both, `4 1 N N`.

    At a border, the last rows or columns of a shifted window came from the opposite one.
    """
    place = torch.arange(side[0] * side[1], device=like.device)
    kind = torch.arange(4, device=like.device)[:, None]
    lower = (place // side[1] >= side[0] - shift[0]) & (kind >= 2)
    further = (place % side[1] >= side[1] - shift[1]) & (kind % 2 == 1)
    part = 2 * lower + further  # 4 N
    strangers = part[:, :, None] != part[:, None, :]
    return strangers[:, None].to(like.dtype) * _APART


def filled_to_windows(x: Tensor, side: int) -> Tensor:
    """Continue `B C H W` mirrored, its border not repeated, below and to the right, to whole windows.

    Not to more than one where one holds all: what is shifted into a second window would be seen.
    """
    return mirrored_to_multiple(x, side, singly=True)


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None = None, windows: Windows | None = None,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """Return softmax(Q Kᵀ / √d + bias + mask) V for each window and head.

    The bias, together with each mask, goes into torch's fused attention, which never holds all the logits,
    nor is a mask ever held for each window. Programs for other runtimes get the formula as it stands.

    Args:
        query: `B n h N d`.
        key: `B n h M d`.
        value: `B n h M e`.
        bias: `h N M`.
        windows: whose mask there is, if any.
        scale: in place of 1 / √d.

    Returns:
        `B n h N e`.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    mask, counts = (windows.mask, windows.counts) if windows else (None, None)
    if torch.compiler.is_exporting():
        logits = (query * scale) @ key.transpose(-2, -1)  # B n h N M
        for part in (bias, mask):
            logits = logits if part is None else logits + part
        return logits.softmax(-1) @ value
    if mask is None or counts is None:
        return _fused(query, key, value, bias, scale)
    parts = zip(*(part.split(counts, 1) for part in (query, key, value)), mask, strict=True)
    mixed = [_fused(q, k, v, m if bias is None else bias + m, scale) for q, k, v, m in parts if q.shape[1]]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1)


def _fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    # Fused kernels take four dimensions only, and heads of one width; zeros change no logit.
    if query.shape[-1] < value.shape[-1]:
        wider = (0, value.shape[-1] - query.shape[-1])
        query, key = F.pad(query, wider), F.pad(key, wider)
    flat_query, flat_key, flat_value = (part.flatten(0, 1) for part in (query, key, value))
    added = None if bias is None else bias[None].expand(1, query.shape[2], -1, -1)
    mixed = F.scaled_dot_product_attention(flat_query, flat_key, flat_value, attn_mask=added, scale=scale)
    return mixed.unflatten(0, query.shape[:2])


def bias_at(places: Tensor, table: Tensor) -> Tensor:
    """Return the bias of relative places `N M` from a table `places h`, `h N M`."""
    return table.T.contiguous().index_select(1, places.flatten()).unflatten(1, places.shape)


class WindowAttention(nn.Module):
    """Multi-head attention within windows: softmax(Q Kᵀ / √d + bias of the relative places) V.

    Args:
        width: C.
        heads: h; C must be a multiple.
        side: w.
        positions: whether each head learns a bias for each relative place; else the order of pixels is lost.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(
        self, width: int, heads: int, side: int, *, positions: bool = True, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width, bias=qkv_bias)
        self.project = linear(width, width)
        self.bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads)) if positions else None
        if self.bias_table is not None:
            nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("places", relative_places(side, side), persistent=False)
        self.places: Tensor

    def forward(self, x: Tensor, windows: Windows | None = None) -> Tensor:
        """Map windows `B n N C` to the same, with the mask that they have."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).movedim(-2, 2).unbind(4)  # B n h N d
        bias = None if self.bias_table is None else bias_at(self.places, self.bias_table)
        mixed = attend(q, k, v, bias=bias, windows=windows)
        projected: Tensor = self.project(mixed.transpose(2, 3).flatten(3))
        return projected


def linear(width: int, to: int, *, bias: bool = True) -> PixelLinear:
    """Return a linear layer that starts as these networks' do."""
    layer = PixelLinear(width, to, bias=bias)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def relative_places(tall: int, wide: int) -> Tensor:
    """Return, for each two pixels of a window, the number of their relative place, `N N`."""
    row, column = torch.meshgrid(torch.arange(tall), torch.arange(wide), indexing="ij")
    down = row.flatten()[:, None] - row.flatten() + tall - 1
    right = column.flatten()[:, None] - column.flatten() + wide - 1
    return down * (2 * wide - 1) + right


class FeedForward(nn.Module):
    """Two linear layers with GELU between.

    Args:
        width: C.
        ratio: hidden width over C.
    """

    def __init__(self, width: int, *, ratio: float) -> None:
        super().__init__()
        self.expand = linear(width, int(width * ratio))
        self.contract = linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.contract(F.gelu(self.expand(x)))
        return mixed


class SwinLayer(nn.Module):
    """Attention in windows, then a feed-forward network, each behind a norm and with a skip (eq. 3).

    Args:
        width: C.
        heads: h.
        side: w.
        ratio: hidden width of the feed-forward network over C.
        positions: see `WindowAttention`.
        qkv_bias: likewise.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        side: int,
        *,
        ratio: float,
        positions: bool = True,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, side, positions=positions, qkv_bias=qkv_bias)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, ratio=ratio)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Map pixels `B P C` to the same."""
        normed = self.attention_norm(x)
        x = x + windows.over(normed, lambda some: self.attention(some.cut(normed), some))
        return by_pixels(lambda some: some + self.feed_forward(self.feed_forward_norm(some)), x)


def closing(width: int, kind: str) -> Closing:
    """Return what closes a residual block or a trunk of these networks.

    Args:
        width: C.
        kind: "1conv", a 3×3 convolution; "3conv", three with a quarter of the width between them; "identity".
    """
    narrow = width // 4
    if kind == "identity":
        return nn.Identity()
    if kind == "1conv":
        return nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(width, narrow, 3, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(narrow, narrow, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(narrow, width, 3, padding=1),
    )  # fmt: skip


def channels_last(picture: Tensor) -> Tensor:
    """Return a picture with its pixels as rows of channels in memory, as windows take them."""
    # Exported programs are for all sizes; some have both orders at once, and a program would exclude them.
    return picture if torch.compiler.is_exporting() else picture.contiguous(memory_format=torch.channels_last)


def pixels_of(picture: Tensor) -> Tensor:
    """Return the pixels of `B C H W`, `B P C`."""
    return picture.permute(0, 2, 3, 1).flatten(1, 2)


def pictured(pixels: Tensor, like: Tensor) -> Tensor:
    """Return pixels `B P C` as a picture `B C H W` of the height and width of another."""
    # In this order a batch of one gets the strides by which channels-last memory is known.
    return pixels.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


OFFICIAL_NAMES = (
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".feed_forward_norm."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.proj\.", ".attention.project."),
    (r"\.attn\.relative_position_bias_table$", ".attention.bias_table"),
    (r"\.mlp\.fc1\.", ".feed_forward.expand."),
    (r"\.mlp\.fc2\.", ".feed_forward.contract."),
)
"""Names of a layer that SwinIR's and HAT's authors share, and ours."""
