"""How well an output agrees with its input: what comes back when it is shrunk again.

Consistency is the PSNR in dB between the input and the output, rounded to the levels that are written and
then shrunk to the input's size by antialiased bicubic (MATLAB's, `nn.resize`), in which super-resolution
models are trained. It asks for no original, so it can be told of any picture. It says that nothing was
lost or shifted, not that what was added is true.

An 8-bit input was itself rounded, to within 59 dB of the values before; agreement beyond that is
agreement with its rounding.

Shapes: C channels, H W input, h W' rows of the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from relume.infer.resampling import RowResampler

Rows = Callable[[int, int], Tensor]

EXACT = 99.0
"""Decibels from which agreement is called exact: an error of 1/350 of a level of 8 bits."""


class Consistency:
    """Compares an output that comes strip by strip with its input.

    Args:
        rows: gives rows of the input, `C h W` for top and bottom, float32 of 0..1: colour or gray, no alpha.
        shape: C, H and W of the input.
        height: rows of the output.
        width: their length. An output smaller than the input is enlarged instead, so that what was lost
            shows.
        bits: of each value as written, 8 … 16, or 32 of floats.
    """

    def __init__(
        self, rows: Rows, shape: tuple[int, int, int], *, height: int, width: int, bits: int
    ) -> None:
        self._rows, self._shape = rows, shape
        self._shrink = RowResampler(
            height_in=height, width_in=width, height_out=shape[1], width_out=shape[2], channels=shape[0]
        )
        self._largest = 2**bits - 1
        self._compared = 0
        self._squares = 0.0

    def push(self, rows: Tensor) -> None:
        """Take the next rows of the output, `C h W'`; they are clamped to 0..1 and rounded here.

        Raises:
            ValueError: the rows do not fit, or are too many.
        """
        levels = rows.clamp(0, 1).mul_(self._largest).add_(0.5).floor_()
        shrunk = self._shrink.push(levels.div_(self._largest))
        bottom = self._compared + shrunk.shape[1]
        shrunk -= self._rows(self._compared, bottom)
        self._squares += shrunk.double().square_().sum().item()
        self._compared = bottom

    @property
    def decibels(self) -> float:
        """The figure; infinity where the two are equal.

        Raises:
            ValueError: rows are still missing.
        """
        if self._compared < self._shape[1]:
            raise ValueError(f"only {self._compared} of {self._shape[1]} rows have been compared")
        error = self._squares / math.prod(self._shape)
        return math.inf if error == 0 else -10 * math.log10(error)


def consistency(low: Tensor, output: Tensor, *, bits: int) -> float:
    """Return the consistency in dB of an output that lies whole in memory, both `C H W`."""
    channels, rows, columns = low.shape
    compared = Consistency(
        lambda top, bottom: low[:, top:bottom],
        (channels, rows, columns),
        height=output.shape[1],
        width=output.shape[2],
        bits=bits,
    )  # fmt: skip
    compared.push(output)
    return compared.decibels


def in_words(decibels: float) -> str:
    """Return the figure for people: "61.2 dB", or "exact"."""
    return "exact" if decibels >= EXACT else f"{decibels:.1f} dB"
