"""Making a picture's sides multiples of a number, for networks that halve them, and cutting it back.

Pixels are gathered by their places, so that an exported program does it for all sizes: slices and borders of
computed lengths would fix them.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_IN_ONNX = 16
"""Largest multiple of which the example for ONNX, 24 × 20 pixels, takes two (`infer.engines.onnx_file`)."""


def zeros_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Append zeros below and to the right of `B C H W`, to sides that are multiples.

    In a program of `torch.export`, to two multiples or more, see `_above`.
    """
    for dim in (2, 3):
        side = x.shape[dim]
        places = torch.arange(_above(side, multiple, singly=False), device=x.device)
        inside = (places < side).to(x.dtype)
        x = x.index_select(dim, places.clamp(max=side - 1)) * (inside if dim == 3 else inside[:, None])
    return x


def mirrored_to_multiple(x: Tensor, multiple: int, *, singly: bool = False) -> Tensor:
    """Continue the picture mirrored, its border not repeated, below and to the right, however small it is.

    Args:
        x: `B C H W`.
        multiple: what the sides become multiples of.
        singly: whether a program of `torch.export`, too, stops at one multiple that holds all, see `_above`.
    """
    for dim in (2, 3):
        x = _mirrored(x, dim, _above(x.shape[dim], multiple, singly=singly))
    return x


def mirrored_to_least(x: Tensor, least: int) -> Tensor:
    """Continue sides of `B C H W` that are shorter than `least` mirrored, below and to the right."""
    for dim in (2, 3):
        side = x.shape[dim]
        # A program of `torch.export` is for all sizes, so it always gathers.
        if torch.compiler.is_exporting() or side < least:
            x = _mirrored(x, dim, torch.sym_max(side, least))
    return x


def mirrored_from_small(x: Tensor, least: int, *, to: int) -> Tensor:
    """Continue sides of `B C H W` that are shorter than the least mirrored to a length, as above."""
    for dim in (2, 3):
        if x.shape[dim] < least:
            x = _mirrored(x, dim, to)
    return x


def cut(x: Tensor, like: Tensor, *, scale: int = 1) -> Tensor:
    """Return the upper left of `B C H W`, `scale` times as large as another picture is."""
    for dim in (2, 3):
        x = x.index_select(dim, torch.arange(like.shape[dim] * scale, device=x.device))
    return x


def _mirrored(x: Tensor, dim: int, length: int) -> Tensor:
    """Continue a side of `B C H W` mirrored, its border not repeated, until it is `length` long."""
    places = torch.arange(length, device=x.device)
    # A tensor, as ONNX has no remainder by a computed number.
    period = places.new_full((1,), torch.sym_max(2 * (x.shape[dim] - 1), 1))
    places = places % period
    return x.index_select(dim, torch.minimum(places, (period - places) % period))


def _above(side: int, multiple: int, *, singly: bool) -> int:
    """Return the multiple that holds a side; at least two of it in a program exported for all sizes.

    Features of a single pixel are a case of their own to `torch.export`, whose program would refuse them.
    ONNX has no such cases, unless the example that it is made from has them. A caller whose features never
    are that small says so by `singly`.
    """
    count = (side + multiple - 1) // multiple
    fine_in_onnx = torch.onnx.is_in_onnx_export() and multiple <= _MOST_IN_ONNX
    if torch.compiler.is_exporting() and not (singly or fine_in_onnx):
        count = torch.sym_max(count, 2)
    return count * multiple
