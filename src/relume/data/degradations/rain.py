"""Rain: streaks of falling drops in several distances, and the veil of those too far to be seen singly.

Streaks are added to the picture, I = J + ΣS (Yang et al., CVPR 2017, arXiv:1609.07769, and the test sets
Rain100), or laid over it as light through light, I = 1 - (1 - J)(1 - ΣS) ("screen"); before that the veil is
mixed in as haze of one distance, J t + A (1 - t) (Li et al., CVPR 2019, arXiv:1904.05050). On stored values,
as there. A streak is the path of a drop while the shutter is open: a line with soft
sides and ends; nearer layers hold fewer, longer and wider streaks.

Departs from the papers: they take streaks from a photographer's programme or a table of lit drops; ours are
drawn by their size alone. The veil is the same all over and lies behind the streaks, where the
second paper has it before them.

Shapes: C channels, H W.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from relume.data.degradations.base import SameSizeConfig, each_picture
from relume.data.degradations.fields import scattered
from relume.data.degradations.haze import hazy
from relume.data.degradations.ranges import (
    AnyRange,
    NonNegativeRange,
    PositiveRange,
    ShareRange,
    Strength,
    normal,
    uniform,
    within,
)

_KINDS = 3
"""Differently long and slanted streaks in a layer."""

_FARTHEST = 0.35
"""Size of the farthest layer's streaks, where the nearest's is 1."""


class RainConfig(SameSizeConfig):
    """Settings of rain.

    Attributes:
        strength: multiplies the streaks' light and the veil's density.
        density: streaks of the nearest layer in a megapixel; farther layers hold more; at most 100,000.
        length: of the nearest streaks, pixels; at most 1,000.
        width: of the nearest streaks, pixels; at most 100.
        slant: degrees from the vertical, positive when drops fall to the right; -90 to 90.
        spread: standard deviation of single streaks' slants, degrees; at most 90.
        brightness: of the nearest streaks.
        layers: how many distances; 1 to 32.
        veil: density of what is too far to be seen singly; a share exp(-veil) of the picture passes; at
            most 10.
        composition: "additive" as the published sets have it, or "screen", which never whitens out.
    """

    name: Literal["rain"] = "rain"
    strength: Strength = 1.0
    density: Annotated[NonNegativeRange, within(0, 100000)] = (150.0, 700.0)
    length: Annotated[PositiveRange, within(0, 1000)] = (30.0, 90.0)
    width: Annotated[PositiveRange, within(0, 100)] = (1.0, 2.4)
    slant: Annotated[AnyRange, within(-90, 90)] = (-25.0, 25.0)
    spread: Annotated[NonNegativeRange, within(0, 90)] = (1.0, 4.0)
    brightness: ShareRange = (0.3, 0.6)
    layers: Annotated[int, Field(ge=1, le=32)] = 4
    veil: Annotated[NonNegativeRange, within(0, 10)] = (0.0, 0.5)
    composition: Literal["additive", "screen"] = "additive"

    def damage(self) -> Rain:
        return Rain(self)


class Rain:
    """Lets it rain on each picture; `margin` is 0."""

    margin = 0

    def __init__(self, config: RainConfig) -> None:
        self.config = config

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        config = self.config
        veil = config.strength * uniform(config.veil, random)
        airlight = uniform((0.6, 0.8), random)
        height, width = picture.shape[-2:]
        streaks = config.strength * self.streaks(height, width, random).to(picture.device)
        veiled = hazy(picture, picture.new_tensor(math.exp(-veil)), airlight)
        if config.composition == "additive":
            return veiled + streaks
        return 1 - (1 - veiled) * (1 - streaks.clamp(max=1))

    def streaks(self, height: int, width: int, random: torch.Generator) -> Tensor:
        """Return ΣS, the light of the streaks, as `1 H W`, at strength 1."""
        config = self.config
        density, brightness = uniform(config.density, random), uniform(config.brightness, random)
        slant, spread = uniform(config.slant, random), uniform(config.spread, random)
        length, thickness = uniform(config.length, random), uniform(config.width, random)
        light = torch.zeros(height, width)
        for layer in range(config.layers):
            size = 1 - (1 - _FARTHEST) * layer / max(1, config.layers - 1)
            # As far as one looks, a cone of air widens with the square of the distance.
            count = density / size**2 / _KINDS
            for _ in range(_KINDS):
                own = size * uniform((0.5, 1.3), random)
                kernel = streak(length * own, thickness * size, slant + spread * normal(random))
                light += brightness * size * scattered(height, width, kernel, count=count, random=random)
        return light.unsqueeze(0)


def streak(length: float, width: float, slant: float) -> Tensor:
    """Return one streak `h w`, odd sides, 1 in its middle.

    Args:
        length: pixels between its ends, which fade out over a quarter of it.
        width: pixels between the places of half its light.
        slant: degrees from the vertical.
    """
    reach = math.ceil(length / 2 + width)
    angle = math.radians(slant)
    grid = torch.arange(-reach, reach + 1.0)
    rows, columns = grid.unsqueeze(1), grid.unsqueeze(0)
    along = rows * math.cos(angle) + columns * math.sin(angle)
    across = columns * math.cos(angle) - rows * math.sin(angle)
    # Below about a pixel a line of half the width shines half as bright and is drawn no thinner.
    drawn = max(width, 1.2)
    side = torch.exp(-4 * math.log(2) * (across / drawn) ** 2)
    end = ((length / 2 - along.abs()) / (length / 4)).clamp(0, 1)
    return side * end * end * (3 - 2 * end) * min(1.0, width / drawn)


CONFIG = RainConfig
