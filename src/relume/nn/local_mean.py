"""A mean around each place instead of one over the whole picture, for networks trained on small patches.

Chu, Chen, Chen, Lu, ECCV 2022, arXiv:2112.04491 (TLC, first TLSC): a network that weighs channels by their
mean was trained on patches; on a whole photo that mean says something else. In use it is taken over a window
1.5 times as large as the patches were. Shapes: B C H W.

    mean at a place = mean over the window around it, which near a border is the last whole window

Departs from the authors' code: sums run along one axis at a time and in float32, which rounds less than a
table of sums over both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalMean(nn.Module):
    """Mean over a window, or over the whole picture where no side of it is longer than the window's.

    Args:
        window: its height and width, None for the whole picture.
    """

    def __init__(self, window: tuple[int, int] | None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Map `B C H W` to `B C 1 1` where the window holds all, else to `B C H W`."""
        if self.window is None:
            return x.mean((2, 3), keepdim=True)
        # An exported program is for all sizes, and the general way gives the same for small ones.
        if not torch.compiler.is_exporting() and all(
            side <= most for side, most in zip(x.shape[2:], self.window, strict=True)
        ):
            return x.mean((2, 3), keepdim=True)
        mean = x.float().contiguous()
        for dim, most in zip((2, 3), self.window, strict=True):
            mean = _along(mean, dim, most)
        return mean.to(x.dtype)

    def extra_repr(self) -> str:
        """Show the window."""
        return f"window={self.window}"


def window_at(patch: tuple[int, int], *, level: int, levels: int) -> tuple[int, int]:
    """Return the window after `level` halvings, of `levels` in the network, that was trained on patches.

    Args:
        patch: height and width of the patches.
        level: how often features were halved here.
        levels: how often at most; the patches were made larger so that this is possible.
    """
    multiple = 2**levels
    height, width = (
        ((side + multiple - 1) // multiple * multiple >> level) * int(1.5 * side) // side for side in patch
    )
    return height, width


def _along(x: Tensor, dim: int, most: int) -> Tensor:
    """Return the mean over a window of `most` places along a side, or all where it is shorter."""
    side = x.shape[dim]
    length = torch.sym_min(side, most)
    # sums[i] is that of the first i places.
    sums = F.pad(x.cumsum(dim), (1, 0) if dim == 3 else (0, 0, 1, 0))
    first = torch.arange(side, device=x.device) - (length - 1) // 2
    first = first.clamp(min=0).clamp(max=side - length)
    return (sums.index_select(dim, first + length) - sums.index_select(dim, first)) / length
