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

More than three rounds cost halo and time and win little that 8 bits can hold. It is meant for models that
only enlarge: one that also removes noise or JPEG blocks would have them put back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from relume.core.errors import RelumeError
from relume.infer.operators import Operator
from relume.nn.resize import imresize

ROUNDS = 3

_SMALLEST, _LARGEST = 0.223, 1.0
"""The eigenvalues of shrinking what was enlarged, both sides together; a test holds them."""


@dataclass(frozen=True)
class Faithful:
    """An operator whose output is corrected until it agrees with the input; stays within 0..1.

    Attributes:
        operator: what is run first.
        rounds: corrections made, 1 or more.

    Raises:
        RelumeError: the operator does not enlarge.
        ValueError: there are no rounds.
    """

    operator: Operator
    rounds: int = ROUNDS

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"{self.rounds} rounds correct nothing")
        if self.operator.scale < 2:
            raise RelumeError(
                "a model that does not enlarge cannot be held to its input, as it would change nothing; "
                "use one that enlarges, or leave this out"
            )

    @property
    def scale(self) -> int:
        """As inside."""
        return self.operator.scale

    @property
    def channels(self) -> int:
        """As inside."""
        return self.operator.channels

    @property
    def halo(self) -> int | None:
        """Three input pixels more than inside for each round, and one.

        Enlarging looks two pixels ahead from the half of a pixel's outputs that lies ahead, and one from
        the half behind. Shrinking looks two ahead, there only at the half behind. So the first round
        takes 2 + 2 and each other one 1 + 2.
        """
        halo = self.operator.halo
        return None if halo is None else halo + 3 * self.rounds + 1

    def __call__(self, low: Tensor) -> Tensor:
        """Run and correct, `B C h w` to `B C sh sw`."""
        output = self.operator(low).clamp(0, 1)
        (height, width), (rows, columns) = low.shape[-2:], output.shape[-2:]
        for step in chebyshev_steps(self.rounds):
            missing = low - imresize(output, height=height, width=width)
            output.add_(imresize(missing, height=rows, width=columns), alpha=step).clamp_(0, 1)
        return output


def chebyshev_steps(rounds: int) -> tuple[float, ...]:
    """Return the steps that shrink the error most in so many rounds, the largest first."""
    centre, radius = (_LARGEST + _SMALLEST) / 2, (_LARGEST - _SMALLEST) / 2
    angles = (math.pi * (index + 0.5) / rounds for index in range(rounds))
    return tuple(1 / (centre - radius * math.cos(angle)) for angle in angles)
