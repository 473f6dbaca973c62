"""Windows of the size that a network was trained on, which overlap to cover a picture and are averaged.

Chu, Chen, Chen, Lu, ECCV 2022, arXiv:2112.04491 (TLC): what a network takes over all of a patch in training
it takes in use over windows of that size; over a whole photo it would say something else. As few windows as
cover a side, ⌈side / window⌉, as evenly apart as whole pixels allow, the last at the border.

Shapes: B C H W, R rows and S columns of windows, h w a window's sides, no longer than the picture's.

Departs from the authors' code: takes batches of several pictures, and all windows of a batch at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def over_windows(x: Tensor, function: Callable[[Tensor], Tensor], *, window: int) -> Tensor:
    """Return the mean, at each pixel, of what a function makes of the windows that hold it.

    Args:
        x: `B C H W`.
        function: maps `n C h w` to `n D h w`; what it gives does not depend on zeros appended at the ends.
        window: longest side of a window, pixels.

    Returns:
        `B D H W`.
    """
    # An exported program is for all sizes, and the general way gives the same for small ones.
    if not torch.compiler.is_exporting() and max(x.shape[2:]) <= window:
        return function(x)
    rows, columns = (_places(x.shape[dim], window, x.device) for dim in (2, 3))  # R h, S w
    windows = _taken(_taken(x, rows, 2), columns, 4)  # B C R h S w
    mapped = function(windows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))  # BRS D h w
    count = (x.shape[0], rows.shape[0], columns.shape[0])
    mapped = mapped.unflatten(0, count).permute(0, 3, 1, 4, 2, 5)  # B D R h S w
    mapped = _joined(mapped.flatten(4), columns, side=x.shape[3])  # B D R h W
    return _joined(mapped.flatten(2, 3).transpose(2, 3), rows, side=x.shape[2]).transpose(2, 3)


def _places(side: int, window: int, device: torch.device) -> Tensor:
    """Return which pixels of a side each window holds, `windows × pixels`; those past the border are none.

    In a program of `torch.export` every window is whole and there are two at least, if of the same pixels: a
    single one, and sides of one pixel, are cases of their own to it.
    """
    count, length = (side + window - 1) // window, min(side, window)
    if torch.compiler.is_exporting():
        count, length = torch.sym_max(count, 2), window
    gaps, room = torch.sym_max(count - 1, 1), torch.sym_max(side - length, 0)
    first = (torch.arange(count, device=device) * ((room + gaps - 1) // gaps)).clamp(max=room)
    return first[:, None] + torch.arange(length, device=device)


def _taken(x: Tensor, places: Tensor, dim: int) -> Tensor:
    """Return windows along a side, `… windows pixels …`, with zeros past its border."""
    side = x.shape[dim]
    windows = x.index_select(dim, places.flatten().clamp(max=side - 1)).unflatten(dim, places.shape)
    if torch.compiler.is_exporting():
        windows = windows * (places < side).to(x.dtype)[(..., *(None,) * (x.ndim - dim - 1))]
    return windows


def _joined(x: Tensor, places: Tensor, *, side: int) -> Tensor:
    """Return `… side` from windows one after another, `… n`: the mean where they overlap."""
    order, inside = places.flatten(), (places.flatten() < side).to(x.dtype)
    order = order.clamp(max=side - 1)
    sums = x.new_zeros((*x.shape[:-1], side)).index_add(-1, order, x * inside)
    return sums / x.new_zeros(side).index_add(0, order, inside)
