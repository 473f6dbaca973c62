"""MATLAB's antialiased bicubic on a picture that comes strip by strip and is never whole in memory.

Gives the values of `nn.resize.imresize` (to 1e-6 in float32: passes and sums are taken in another
order). Each row that comes is added, with its weights, to the few outputs that read it; an output leaves
when the last of its rows has come. So no input is kept, and only the outputs begun are: about six rows
when shrinking, about five for each input row when enlarging.

Shapes: C channels, W width of the input, h rows of a strip.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from relume.nn.resize import side_blocks, side_taps

_ROWS = 32
"""Rows taken at a time: their weights are one dense matrix, mostly of zeros were it longer."""

_COLUMNS = 32
"""Outputs in a block of the horizontal pass; of 4..64 the fastest when shrinking."""


class RowResampler:
    """Resizes one picture from top to bottom.

    Args:
        height_in: rows that will come.
        width_in: their length.
        height_out: rows that will leave.
        width_out: their length.
        channels: C.

    Raises:
        ValueError: a size is below 1.
    """

    def __init__(
        self, *, height_in: int, width_in: int, height_out: int, width_out: int, channels: int
    ) -> None:
        if min(height_in, width_in, height_out, width_out, channels) < 1:
            raise ValueError(
                f"cannot resize {height_in}×{width_in} to {height_out}×{width_out} "
                f"in {channels} channels: something is empty"
            )
        self._shape_in = (channels, height_in, width_in)
        self._shape_out = (channels, height_out, width_out)
        self._index, self._weights = side_taps(height_in, height_out, antialias=True)
        read = self._weights != 0
        firsts = np.where(read, self._index, height_in).min(axis=1)
        lasts = np.where(read, self._index, -1).max(axis=1)
        # Mirrored at the border, neither need rise from output to output; but outputs leave in order.
        self._begin = np.minimum.accumulate(firsts[::-1])[::-1]
        self._end = np.maximum.accumulate(lasts)
        # The narrower side of the horizontal pass is where the vertical one is cheaper.
        self._narrow_first = width_out <= width_in
        self._came = 0
        self._left = 0
        self._open = torch.empty(channels, 0, width_out if self._narrow_first else width_in)

    def push(self, rows: Tensor) -> Tensor:
        """Take the next rows, give the outputs that they complete.

        Args:
            rows: `C h W`, float32 on the CPU, any h.

        Returns:
            C × any number of rows, also none, × the new width. All have left when all have come.

        Raises:
            ValueError: the rows do not fit, or are more than were announced.
        """
        channels, height, width = self._shape_in
        if rows.ndim != 3 or rows.shape[0] != channels or rows.shape[2] != width:
            raise ValueError(f"expected rows of {channels}×any×{width}, not {tuple(rows.shape)}")
        if self._came + rows.shape[1] > height:
            raise ValueError(f"{self._came} rows of {height} have come, {rows.shape[1]} more are too many")
        if self._narrow_first:
            rows = self._horizontally(rows)
        done = torch.cat([self._add(part) for part in rows.split(_ROWS, dim=1)], dim=1)
        return done if self._narrow_first else self._horizontally(done)

    def _horizontally(self, rows: Tensor) -> Tensor:
        before, after = self._shape_in[2], self._shape_out[2]
        if before == after:
            return rows
        output = rows.new_empty(*rows.shape[:2], after)
        blocks = side_blocks(
            before, after, antialias=True, dtype=rows.dtype, device=rows.device, size=_COLUMNS
        )
        left = 0
        for block in blocks:
            right = left + len(block.weights)
            output[..., left:right] = rows[..., block.start : block.start + block.length] @ block.weights.T
            left = right
        return output

    def _add(self, rows: Tensor) -> Tensor:
        """Add rows to the outputs that read them; give those that no later row belongs to."""
        top, bottom = self._came, self._came + rows.shape[1]
        self._came = bottom
        begun = int(np.searchsorted(self._begin, bottom))  # outputs before it read a row above `bottom`
        done = int(np.searchsorted(self._end, bottom))  # outputs before it read none from `bottom` on
        weights = torch.from_numpy(self._matrix(top, bottom, begun)).to(rows.dtype)
        sums = weights @ rows
        sums[:, : self._open.shape[1]] += self._open
        leaving = done - self._left
        self._left = done
        self._open = sums[:, leaving:].clone()
        return sums[:, :leaving]

    def _matrix(self, top: int, bottom: int, begun: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Weights of the rows `top` up to `bottom` in the outputs that are open, or will be."""
        index, weights = self._index[self._left : begun], self._weights[self._left : begun]
        outputs, taps = np.nonzero((index >= top) & (index < bottom))
        matrix = np.zeros((len(index), bottom - top))
        # add.at, as a mirrored row may stand twice for one output.
        np.add.at(matrix, (outputs, index[outputs, taps] - top), weights[outputs, taps])
        return matrix
