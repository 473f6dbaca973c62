"""Covering the chosen blocks of a picture with few windows, to run a network on them alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """A rectangle, in blocks or pixels: first row and column, and one past the last."""

    top: int
    left: int
    bottom: int
    right: int

    def enlarged(self, scale: int) -> tuple[slice, slice]:
        """Return its rows and columns in a picture `scale` times as large."""
        return slice(self.top * scale, self.bottom * scale), slice(self.left * scale, self.right * scale)


def cover(chosen: Tensor, *, context: float, largest: int) -> list[Window]:
    """Return windows that do not overlap and together hold all chosen blocks.

    A window costs its area with a frame of context around it, so one large
    window is cheaper than many small ones until too much in it is not chosen.
    The picture is halved again and again, and halves are taken apart only
    where that is cheaper.

    Args:
        chosen: which blocks, booleans `rows columns`, on the CPU.
        context: width of the frame that is computed in vain, in blocks.
        largest: longest side of a window, in blocks.
    """
    rows, columns = chosen.shape
    # Sums over any rectangle in four look-ups: S[b, r] - S[t, r] - S[b, l] + S[t, l].
    sums = torch.zeros(rows + 1, columns + 1, dtype=torch.int64)
    sums[1:, 1:] = chosen.to(torch.int64).cumsum(0).cumsum(1)
    return _Cover(sums.tolist(), context, largest).best(Window(0, 0, rows, columns))[1]


class _Cover:
    def __init__(self, sums: list[list[int]], context: float, largest: int) -> None:
        self._sums, self._frame, self._largest = sums, 2 * context, largest

    def best(self, window: Window) -> tuple[float, list[Window]]:
        """Return the cheapest cover found inside a window, and what it costs."""
        if not self._count(*window):
            return 0.0, []
        window = self._tight(window)
        top, left, bottom, right = window
        height, width = bottom - top, right - left
        fits = max(height, width) <= self._largest
        whole = (height + self._frame) * (width + self._frame)
        if fits and self._count(*window) == height * width:
            return whole, [window]
        if height >= width:
            middle = (top + bottom) // 2
            halves = Window(top, left, middle, right), Window(middle, left, bottom, right)
        else:
            middle = (left + right) // 2
            halves = Window(top, left, bottom, middle), Window(top, middle, bottom, right)
        (first, windows), (second, more) = (self.best(half) for half in halves)
        return (whole, [window]) if fits and whole <= first + second else (first + second, windows + more)

    def _tight(self, window: Window) -> Window:
        top, left, bottom, right = window
        while not self._count(top, left, top + 1, right):
            top += 1
        while not self._count(bottom - 1, left, bottom, right):
            bottom -= 1
        while not self._count(top, left, bottom, left + 1):
            left += 1
        while not self._count(top, right - 1, bottom, right):
            right -= 1
        return Window(top, left, bottom, right)

    def _count(self, top: int, left: int, bottom: int, right: int) -> int:
        lower, upper = self._sums[bottom], self._sums[top]
        return lower[right] - upper[right] - lower[left] + upper[left]
