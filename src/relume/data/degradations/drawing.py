"""Degradations that are chains of steps with drawn settings: first drawn, then applied.

What was drawn is a tuple of small frozen steps. It can be printed, compared and applied again to any
picture: a step that needs noise holds a seed of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from relume.data.degradations.base import each_picture

T = TypeVar("T")
Size = tuple[int, int]
"""Height and width."""


class Step(Protocol):
    """One thing that happens to one picture; printed, it says what in a few words."""

    def __call__(self, picture: Tensor, low: Size) -> Tensor:
        """Map `C H W` float32 0..1 to another of any size; `low` is the size that the chain ends with."""
        ...


Steps = tuple[Step, ...]


class Dice:
    """Random choices from a generator.

    Args:
        generator: on the CPU.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def random(self) -> float:
        """Return a number from 0 up to 1, not included."""
        return torch.rand((), generator=self._generator, dtype=torch.float64).item()

    def uniform(self, low: float, high: float) -> float:
        """Return a number between two."""
        return low + (high - low) * self.random()

    def integer(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator).item())

    def choice(self, options: Sequence[T]) -> T:
        """Return one of several, all as likely."""
        return options[self.integer(0, len(options) - 1)]

    def weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        """Return one of several, as likely as their weights say."""
        place = self.random() * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            place -= weight
            if place < 0:
                return option
        return options[-1]

    def shuffled(self, items: Sequence[T]) -> tuple[T, ...]:
        """Return all items in random order."""
        return tuple(items[i] for i in torch.randperm(len(items), generator=self._generator).tolist())

    def matrix(self, *shape: int) -> Tensor:
        """Return float64 numbers from 0 up to 1 in a shape."""
        return torch.rand(shape, generator=self._generator, dtype=torch.float64)

    def seed(self) -> int:
        """Return a seed for noise that is drawn when a step is applied."""
        return int(torch.randint(2**62, (), generator=self._generator).item())


class DrawnDegradation(ABC):
    """A degradation that draws a chain of steps for each picture of a batch.

    What happens to a batch's first picture is `draw(Dice(picture_generator(generator)))`, and so on.

    Attributes:
        scale: high-resolution pixels for each low-resolution one.
        margin: low-resolution pixels at each border that the patch's edge may have shaped.
    """

    def __init__(self, scale: int, margin: int) -> None:
        self.scale = scale
        self.margin = margin

    @abstractmethod
    def draw(self, dice: Dice) -> Steps:
        """Draw what happens to one picture."""

    def apply(self, picture: Tensor, steps: Steps) -> Tensor:
        """Map `C sH sW` to `C H W`, both float32 0..1, by steps that were drawn."""
        height, width = (side // self.scale for side in picture.shape[-2:])
        for step in steps:
            picture = step(picture, (height, width))
        return picture

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        """Map `B C sH sW` to `B C H W`, both float32 0..1 on one device; the generator is on the CPU."""
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        return self.apply(picture, self.draw(Dice(random)))


def describe(steps: Steps) -> str:
    """Tell in one line what was drawn."""
    return " → ".join(map(str, steps))
