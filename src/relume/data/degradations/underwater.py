"""Underwater: water takes away red first, and adds its own light the farther one looks.

In linear light, for each channel c: I_c = (J_c t_c + L_c (1 - t_c)) N_c^D, t_c = N_c^z, with z the distance
in metres, D the depth below the surface and N_c the share of light that is left after a metre, for the ten
Jerlov classes of water (Anwar, Li and Porikli, arXiv:1807.03528, table 1). The water's own light
L_c is, as in Akkaynak and Treibitz, CVPR 2018, that which it scatters over that which it takes away,
L_c = L b / β_c with β_c = -ln N_c. Scattering b has hardly a colour; it is taken to be all that the clearest
channel loses. The camera's exposure makes up for what its brightest channel lost on the way down.

Departs from the first paper: light is mixed as light; the surface's distance counts as well; the water's
own light has the water's colour instead of white; distances are invented where there are no depth maps
(`fields.scene_distance`).

Shapes: C = 3 channels, H W.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from relume.core.errors import DataError
from relume.data.degradations.base import each_picture
from relume.data.degradations.depth_maps import Distant, DistantConfig
from relume.data.degradations.fields import scene_distance
from relume.data.degradations.light import to_linear, to_stored
from relume.data.degradations.ranges import NonNegativeRange, ShareRange, Strength, uniform, within

Water = Literal["I", "IA", "IB", "II", "III", "1", "3", "5", "7", "9"]
LEFT_PER_METRE: dict[Water, tuple[float, float, float]] = {
    "I": (0.85, 0.961, 0.982),
    "IA": (0.84, 0.955, 0.975),
    "IB": (0.83, 0.95, 0.968),
    "II": (0.80, 0.925, 0.94),
    "III": (0.75, 0.885, 0.89),
    "1": (0.75, 0.885, 0.875),
    "3": (0.71, 0.82, 0.80),
    "5": (0.67, 0.73, 0.67),
    "7": (0.62, 0.61, 0.50),
    "9": (0.55, 0.46, 0.29),
}
"""Share of red, green and blue light left after a metre: clear ocean (I … III), coasts (1 … 9)."""
_NEAREST = 0.25
"""Distance of the nearest point of an invented scene, where the farthest is at 1."""


class UnderwaterConfig(DistantConfig):
    """Settings of pictures under water, beside those of `DistantConfig`.

    Attributes:
        strength: multiplies depth and distances.
        waters: classes of water by Jerlov, one drawn for each picture.
        distance: of the scene's farthest point, metres; at most 1,000.
        depth: of camera and scene below the surface, metres; at most 1,000.
        scattered: L, linear brightness of endless water at the surface, in its clearest channel.
    """

    name: Literal["underwater"] = "underwater"
    strength: Strength = 1.0
    waters: tuple[Water, ...] = Field(("I", "IB", "II", "III", "1", "3", "5"), min_length=1)
    distance: Annotated[NonNegativeRange, within(0, 1000)] = (2.0, 8.0)
    depth: Annotated[NonNegativeRange, within(0, 1000)] = (1.0, 6.0)
    scattered: ShareRange = (0.25, 0.55)

    def damage(self) -> Underwater:
        """Return the degradation.

        Raises:
            DataError: there are no depth maps where they should be.
        """
        return Underwater(self)


class Underwater(Distant):
    """Sinks each picture."""

    def __init__(self, config: UnderwaterConfig) -> None:
        super().__init__(config.maps())
        self.config = config

    def __call__(self, high: Tensor, *, generator: torch.Generator, distance: Tensor | None = None) -> Tensor:
        """Map `B 3 H W` to the same, seen through water.

        Args:
            high: clean pictures.
            generator: seeds everything drawn.
            distance: `B 1 H W`, the farthest about 1, which stands for the setting's metres; None invents it.

        Raises:
            DataError: the pictures are gray.
        """
        if high.shape[1] != 3:
            raise DataError(
                "degradation underwater changes colours, and the picture is gray; take a colour one"
            )
        known = iter(distance) if distance is not None else None
        return each_picture(
            high,
            generator,
            lambda picture, random: self._damage(picture, random, next(known) if known else None),
        )

    def _damage(self, picture: Tensor, random: torch.Generator, distance: Tensor | None) -> Tensor:
        config = self.config
        water = config.waters[int(torch.randint(len(config.waters), (), generator=random))]
        metres = config.strength * uniform(config.distance, random)
        depth = config.strength * uniform(config.depth, random)
        scattered = uniform(config.scattered, random)
        if distance is None:
            distance = _NEAREST + (1 - _NEAREST) * scene_distance(picture, random)
        left = picture.new_tensor(LEFT_PER_METRE[water]).view(3, 1, 1)
        daylight = left**depth / (left**depth).max()
        loss = -left.log()
        water_light = scattered * loss.min() / loss
        return to_stored(submerged(to_linear(picture), left ** (metres * distance), daylight, water_light))


def submerged(linear: Tensor, transmission: Tensor, daylight: Tensor, water_light: Tensor) -> Tensor:
    """Return (J t + L (1 - t)) · daylight for linear light `3 H W`.

    Args:
        linear: J.
        transmission: t `3 H W`, the share that passes from the scene to the camera.
        daylight: `3 1 1`, the share that reaches the depth.
        water_light: L `3 1 1`, what endless water would show at the surface.
    """
    return (linear * transmission + water_light * (1 - transmission)) * daylight


CONFIG = UnderwaterConfig
