"""Which part of a picture to look at: the one that is asked for, or the one with most to see.

Shapes: C channels, H W picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from relume.core.errors import RelumeError

_CELL = 8
"""Grid in pixels on which parts are tried."""

_ROWS = 512
"""Rows looked at together; a multiple of the grid."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, in pixels from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.width},{self.height}"

    def of(self, plane: Tensor) -> Tensor:
        """Return this part of `… H W`."""
        return plane[..., self.top : self.top + self.height, self.left : self.left + self.width]


def parse_crop(text: str, *, height: int, width: int) -> Crop:
    """Read "x,y,w,h" as a part of a picture of that height and width.

    Raises:
        RelumeError: it is not written so, is empty, or leaves the picture.
    """
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise RelumeError(
            f"a crop is written as x,y,w,h in pixels from the upper left corner: 40,20,128,128, not {text!r}"
        )
    crop = Crop(*map(int, parts))
    if min(crop.width, crop.height) < 1 or crop.left + crop.width > width or crop.top + crop.height > height:
        raise RelumeError(
            f"the crop {crop} is empty or leaves the picture, which is {width}x{height}; choose another"
        )
    return crop


def most_detailed(pixels: Tensor, *, side: int) -> Crop:
    """Return the part of a picture, at most `side` pixels a side, where neighbouring pixels differ most.

    Args:
        pixels: `C H W`.
        side: the part's height and width; a smaller picture is taken whole along that side.
    """
    _, height, width = pixels.shape
    tall, wide = min(side, height), min(side, width)
    cells = torch.cat([_differences(pixels[:, top : top + _ROWS]) for top in range(0, height, _ROWS)])
    window = max(1, tall // _CELL), max(1, wide // _CELL)
    sums = F.avg_pool2d(cells[None, None], window, stride=1)[0, 0]
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return Crop(min(column * _CELL, width - wide), min(row * _CELL, height - tall), wide, tall)


def _differences(rows: Tensor) -> Tensor:
    """Sum up how much the pixels in each cell of the grid differ from the next, channels averaged."""
    gray = rows.mean(0)
    changes = F.pad(gray.diff(dim=1).abs(), (0, 1)) + F.pad(gray.diff(dim=0).abs(), (0, 0, 0, 1))
    padded = F.pad(changes, (0, -changes.shape[1] % _CELL, 0, -changes.shape[0] % _CELL))
    return F.avg_pool2d(padded[None, None], _CELL)[0, 0]
