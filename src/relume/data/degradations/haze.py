"""Haze: what is far away fades into the colour of the air.

Koschmieder's law, as RESIDE (Li et al., IEEE TIP 2019, arXiv:1712.04143, eq. 1 and 2) makes its pictures:
I = J t + A (1 - t), t = exp(-β d), with J the clean picture, A the air's light, β the density and d the
distance. On stored values, as there and in all common test sets.

Departs from the paper: where there are no depth maps (`depth_maps`), a scene is invented
(`fields.scene_distance`); the air's light may be tinted.

Shapes: C channels, H W.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from relume.data.degradations.base import each_picture
from relume.data.degradations.depth_maps import Distant, DistantConfig
from relume.data.degradations.fields import scene_distance
from relume.data.degradations.ranges import NonNegativeRange, ShareRange, Strength, normal, uniform, within

_NEAREST = 0.15
"""Distance of the nearest point of an invented scene, where the farthest is at 1."""


class HazeConfig(DistantConfig):
    """Settings of haze, beside those of `DistantConfig`.

    Attributes:
        strength: multiplies the density.
        density: β, for distances of which the farthest is 1; at most 100.
        airlight: A, brightness of the air.
        tint: how much the air's colours differ from each other, as a standard deviation; at most 0.5.
    """

    name: Literal["haze"] = "haze"
    strength: Strength = 1.0
    density: Annotated[NonNegativeRange, within(0, 100)] = (0.8, 2.2)
    airlight: ShareRange = (0.7, 0.95)
    tint: Annotated[NonNegativeRange, within(0, 0.5)] = (0.0, 0.02)

    def damage(self) -> Haze:
        """Return the degradation.

        Raises:
            DataError: there are no depth maps where they should be.
        """
        return Haze(self)


class Haze(Distant):
    """Fades each picture by the distances given with it, by those of its photo's map, or by invented ones."""

    def __init__(self, config: HazeConfig) -> None:
        super().__init__(config.maps())
        self.config = config

    def __call__(self, high: Tensor, *, generator: torch.Generator, distance: Tensor | None = None) -> Tensor:
        """Map `B C H W` to the same, hazy.

        Args:
            high: clean pictures.
            generator: seeds everything drawn.
            distance: `B 1 H W`, the farthest about 1; None invents it.
        """
        known = iter(distance) if distance is not None else None
        return each_picture(
            high,
            generator,
            lambda picture, random: self._damage(picture, random, next(known) if known else None),
        )

    def _damage(self, picture: Tensor, random: torch.Generator, distance: Tensor | None) -> Tensor:
        config = self.config
        density = config.strength * uniform(config.density, random)
        gray, tint = uniform(config.airlight, random), uniform(config.tint, random)
        colours = [gray + tint * normal(random) for _ in range(3)][: picture.shape[0]]
        airlight = picture.new_tensor(colours).view(-1, 1, 1).clamp(0, 1)
        if distance is None:
            distance = _NEAREST + (1 - _NEAREST) * scene_distance(picture, random)
        return hazy(picture, transmission(distance, density), airlight)


def transmission(distance: Tensor, density: float) -> Tensor:
    """Return t = exp(-β d), the share of light that reaches the camera."""
    return torch.exp(-density * distance)


def hazy(clean: Tensor, transmission: Tensor, airlight: Tensor | float) -> Tensor:
    """Return I = J t + A (1 - t)."""
    return clean * transmission + airlight * (1 - transmission)


CONFIG = HazeConfig
