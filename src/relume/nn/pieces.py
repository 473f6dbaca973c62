"""Doing a large tensor's work piece after piece, so that what is in between is small.

Only in use on CPUs: gradients need what is in between whole, and GPUs want it at once. Small pieces also stay
in the caches, and the system is asked for less memory anew.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PIXELS = 2048
"""Of a piece, or as near as may be."""


def in_pieces_pays(x: Tensor) -> bool:
    """Tell whether a tensor's work is to be done in pieces."""
    exported = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not exported


def by_pixels(function: Callable[..., Tensor], *wholes: Tensor) -> Tensor:
    """Return what a function makes of pixels, `B P C` each, that does not look at their neighbours."""
    return _in_pieces(function, wholes, dim=1, size=PIXELS, halo=0, scale=1)


def by_rows(
    function: Callable[..., Tensor], *wholes: Tensor, halo: int, scale: int = 1, pixels: int = PIXELS
) -> Tensor:
    """Return what a function makes of pictures, `B C H W` each and `B D sH sW` in the end.

    Args:
        function: gives of some rows what it gives of them in the whole, but for `halo` rows at a border that
            is not the picture's own.
        wholes: of one size.
        halo: rows of the input.
        scale: s.
        pixels: of a piece, or as near as may be, for a function that holds far more numbers than its input.
    """
    if not in_pieces_pays(wholes[0]):  # an exported program would be for pictures of some widths only
        return function(*wholes)
    rows = max(pixels // wholes[0].shape[3], 4 * halo, 1)
    return _in_pieces(function, wholes, dim=2, size=rows, halo=halo, scale=scale)


def _in_pieces(
    function: Callable[..., Tensor], wholes: tuple[Tensor, ...], *, dim: int, size: int, halo: int, scale: int
) -> Tensor:
    if not in_pieces_pays(wholes[0]) or wholes[0].shape[dim] <= size:
        return function(*wholes)
    length = wholes[0].shape[dim]
    output: Tensor | None = None
    for start in range(0, length, size):
        end = min(start + size, length)
        first, last = max(start - halo, 0), min(end + halo, length)
        piece = function(*(whole.narrow(dim, first, last - first) for whole in wholes))
        if output is None:
            output = _like(piece, dim, length * scale)
        inner = piece.narrow(dim, (start - first) * scale, (end - start) * scale)
        output.narrow(dim, start * scale, (end - start) * scale).copy_(inner)
    assert output is not None
    return output


def _like(piece: Tensor, dim: int, length: int) -> Tensor:
    """Return an empty tensor that lies in memory as a piece does, but is longer."""
    shape = (*piece.shape[:dim], length, *piece.shape[dim + 1 :])
    last = piece.ndim == 4 and piece.is_contiguous(memory_format=torch.channels_last)
    kept = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=piece.dtype, device=piece.device, memory_format=kept)
