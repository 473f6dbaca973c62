"""Local operators: whatever makes an output picture from an input picture, and can be run tile by tile.

A model on its engine is one. Operators that hold another one (`Chain` here, `Ensemble`) are
operators again, so any stack of them is cut into tiles like a single model, by its own halo, and its
tiles give the pixels of the whole.

Shapes: B batch, C channels, h w input, s scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Operator(Protocol):
    """Enlarges pictures by a whole number, looking no farther than its halo.

    At the borders of what it is given it may do as it likes (pad, mirror …): a tile's edges are either
    those of the picture or covered by the halo.
    """

    @property
    def scale(self) -> int:
        """Output pixels for each input pixel along a side."""

    @property
    def channels(self) -> int:
        """Channels of input and output."""

    @property
    def halo(self) -> int | None:
        """Input pixels, from its own, that an output pixel can look away; None where unbounded."""

    def __call__(self, low: Tensor) -> Tensor:
        """Map `B C h w`, float32 of 0..1 on the CPU, to `B C sh sw` likewise; may pass 0..1 a little."""


@dataclass(frozen=True)
class Chain:
    """Two operators one after the other, for scales beyond the largest model: x2 then x3 is x6.

    Attributes:
        first: sees the input.
        second: sees what the first made of it.

    Raises:
        ValueError: they differ in channels.
    """

    first: Operator
    second: Operator

    def __post_init__(self) -> None:
        if self.first.channels != self.second.channels:
            raise ValueError(
                f"{self.first.channels} channels cannot be handed on to a model of {self.second.channels}"
            )

    @property
    def scale(self) -> int:
        """The product of both."""
        return self.first.scale * self.second.scale

    @property
    def channels(self) -> int:
        """As both have."""
        return self.first.channels

    @property
    def halo(self) -> int | None:
        """The second's halo lies in the first's output, s₁ pixels of which make one of the input."""
        if self.first.halo is None or self.second.halo is None:
            return None
        return self.first.halo + -(-self.second.halo // self.first.scale)

    def __call__(self, low: Tensor) -> Tensor:
        """Run both."""
        # A model may overshoot; the next one was trained on pictures, which never do.
        return self.second(self.first(low).clamp(0, 1))
