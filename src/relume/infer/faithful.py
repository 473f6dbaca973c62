"""Iterative back-projection: an output that, shrunk again, gives back the picture it was made from.

Irani & Peleg, "Improving Resolution by Image Registration", CVGIP: Graphical Models and Image
Processing 53(3), 1991, eq. 3, for one frame: y ← y + τ U (x - D y), where D shrinks by 1/s and U
enlarges by s. D and U are MATLAB's bicubic (`nn.resize`), the ruler that models are trained with.

Departs from the paper in two ways, both chosen by measurement (CFSR, ten photos of Set5 and Set14, crops
of at most 96×96 input pixels; consistency is the PSNR between x and D y):

- The step τ changes from round to round. The eigenvalues of D U lie in 0.223..1 for every scale from 2
  up, and the steps are the inverse roots of the Chebyshev polynomial over that range, which is the
  fastest fixed sequence there is (Richardson, 1911; Young, 1953). Three rounds leave 72.6 dB where
  three of τ = 1 leave 70.4 dB.
- Each round ends with a clamp to 0..1 rather than all of them with one. What a clamp takes away near
  black and white is then given back around it: rounded to 8 bits, the worst of the ten comes to
  61.8 dB instead of 49.8 dB.

| model, rounds | consistency, dB | as 8 bits, dB | worst of ten as 8 bits | PSNR of luma, dB | SSIM |
|---|---|---|---|---|---|
| cfsr-x4, 0 | 50.5 | 50.4 | 44.4 | 28.869 | 0.8414 |
| cfsr-x4, 1 | 56.8 | 56.6 | 50.1 | 28.885 | 0.8413 |
| cfsr-x4, 2 | 64.2 | 63.4 | 57.9 | 28.892 | 0.8415 |
| cfsr-x4, 3 | 72.6 | 69.0 | 61.8 | 28.895 | 0.8415 |
| cfsr-x4, 4 | 80.2 | 71.0 | 62.9 | 28.896 | 0.8416 |
| cfsr-x4, 6 | 92.1 | 71.7 | 64.2 | 28.898 | 0.8416 |
| cfsr-x3, 0 | 53.3 | 53.2 | 46.5 | 31.068 | 0.8956 |
| cfsr-x3, 3 | 75.6 | 68.5 | 62.2 | 31.091 | 0.8958 |
| cfsr-x2, 0 | 56.1 | 55.7 | 46.6 | 35.921 | 0.9508 |
| cfsr-x2, 3 | 79.3 | 66.7 | 65.9 | 36.042 | 0.9510 |

More than three rounds cost time and win little that 8 bits can hold. It is meant for models that only
enlarge: one that also removes noise or JPEG blocks would have them put back.

The correction is made at the size that is written, whatever scales the models have, and strip by strip:
each round holds back as many rows as shrinking and enlarging need to see.

Shapes: C bands, H W input, h W' rows of the output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from relume.infer.consistency import Rows
from relume.infer.resampling import RowResampler

ROUNDS = 3

_SMALLEST, _LARGEST = 0.223, 1.0
"""The eigenvalues of shrinking what was enlarged, both sides together; a test holds them."""


class Corrected:
    """Corrects an output that comes strip by strip until it agrees with its input; stays within 0..1.

    Args:
        rows: gives rows of the input, `C h W` for top and bottom, float32 of 0..1.
        shape: C, H and W of the input.
        height: rows of the output.
        width: their length.
        rounds: corrections made, 1 or more.

    Raises:
        ValueError: there are no rounds.
    """

    def __init__(
        self, rows: Rows, shape: tuple[int, int, int], *, height: int, width: int, rounds: int = ROUNDS
    ) -> None:
        if rounds < 1:
            raise ValueError(f"{rounds} rounds correct nothing")
        self._rounds = [_Round(rows, shape, height, width, step) for step in chebyshev_steps(rounds)]

    def push(self, rows: Tensor) -> Tensor:
        """Take the next rows of the output, `C h W'`; return those that are done, perhaps none.

        All have left when all have come.
        """
        rows = rows.clamp(0, 1)
        for each in self._rounds:
            rows = each.push(rows)
        return rows


class _Round:
    """y ← y + τ U (x - D y), clamped."""

    def __init__(self, rows: Rows, shape: tuple[int, int, int], height: int, width: int, step: float) -> None:
        bands, low_height, low_width = shape
        self._rows, self._step = rows, step
        self._shrink = RowResampler(
            height_in=height, width_in=width, height_out=low_height, width_out=low_width, channels=bands
        )
        self._enlarge = RowResampler(
            height_in=low_height, width_in=low_width, height_out=height, width_out=width, channels=bands
        )
        self._compared = 0
        self._waiting = torch.empty(bands, 0, width)

    def push(self, rows: Tensor) -> Tensor:
        self._waiting = torch.cat([self._waiting, rows], 1)
        shrunk = self._shrink.push(rows)
        bottom = self._compared + shrunk.shape[1]
        missing = self._rows(self._compared, bottom) - shrunk
        self._compared = bottom
        correction = self._enlarge.push(missing)
        ready = self._waiting[:, : correction.shape[1]]
        self._waiting = self._waiting[:, correction.shape[1] :].clone()
        return torch.add(ready, correction, alpha=self._step).clamp_(0, 1)


def chebyshev_steps(rounds: int) -> tuple[float, ...]:
    """Return the steps that shrink the error most in so many rounds, the largest first."""
    centre, radius = (_LARGEST + _SMALLEST) / 2, (_LARGEST - _SMALLEST) / 2
    angles = (math.pi * (index + 0.5) / rounds for index in range(rounds))
    return tuple(1 / (centre - radius * math.cos(angle)) for angle in angles)
