"""How visible the grid of 8 × 8 blocks is that JPEG and older video leave; no original is needed.

Muijs and Kirenko, "A No-Reference Blocking Artifact Measure for Adaptive Video Processing", EUSIPCO
2005: differences between neighbouring pixels, each divided by the mean of the three before and the
three after it, so that texture does not count as an edge of a block. Summed along each grid line
they peak at the blocks' borders; the measure is the mean there over the mean elsewhere. The grid's
offset is where that is largest, so pictures cropped after they were compressed are measured too.

Departs from the paper: the size of the blocks is eight and not searched for; 1 level is added to the
mean of the surroundings, as compressed pictures are often flat inside the blocks; and "elsewhere" is
the strongest other position of eight rather than all of them, as pictures enlarged by 2 or 4 repeat
in these steps and would be taken for blocky.

Shapes: H W picture in gray levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relume.measures.gray import check_gray

BLOCK = 8
"""Side of the blocks in pixels."""

SMALLEST = 4 * BLOCK
"""The smallest side in pixels that can be measured."""

_AROUND = 3
_CALM = 1.0


@dataclass(frozen=True, kw_only=True)
class Blockiness:
    """What was found.

    Attributes:
        strength: 1 where there is no grid, and more the more visible it is.
        offset: columns and rows from the picture's corner to the first border between blocks, 0 .. 7
            each; of no meaning where there is no grid.
    """

    strength: float
    offset: tuple[int, int]


def blockiness(gray: Tensor) -> Blockiness:
    """The grid of 8 × 8 blocks, wherever it begins.

    Args:
        gray: H × W, levels in 0 .. 255, as of `gray_levels`.

    Returns:
        Its strength, the mean of both directions', and its place.

    Raises:
        PictureError: a side is shorter than 32 pixels.
        ValueError: the picture is not H × W.
    """
    check_gray(gray, least=SMALLEST, measure="blockiness")
    across, column = _along(gray.double().T)
    down, row = _along(gray.double())
    return Blockiness(strength=(across + down) / 2, offset=(column, row))


def _along(gray: Tensor) -> tuple[float, int]:
    """Strength and offset of the borders between rows."""
    steps = gray.diff(dim=0).abs_()  # step i lies between rows i and i + 1
    length = len(steps) - 2 * _AROUND
    around = torch.zeros_like(steps[:length])
    for shift in range(2 * _AROUND + 1):
        if shift != _AROUND:
            around += steps[shift : shift + length]
    relative = steps[_AROUND : _AROUND + length] / (around / (2 * _AROUND) + _CALM)
    line = relative.mean(dim=1)
    means = torch.stack([line[first::BLOCK].mean() for first in range(BLOCK)])
    (strongest, next_strongest), (place, _) = means.topk(2)
    strength = float(strongest / next_strongest) if next_strongest > 0 else 1.0
    return strength, (int(place) + _AROUND + 1) % BLOCK
