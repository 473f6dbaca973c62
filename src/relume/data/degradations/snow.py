"""Snow: flakes in several distances, the near ones large and out of focus, and the veil of the far ones.

I = K m + J (1 - m), with m the flakes' opacity and K their colour (Liu et al., DesnowNet, IEEE TIP 2018,
arXiv:1708.04512, eq. 1); before that the veil is mixed in as haze of one distance. On stored values,
as there. A flake is an irregular disc, blurred by defocus and drawn out by its fall while the shutter is
open.

Departs from the paper: flakes are drawn here instead of in a photographer's programme, all of one near-white
colour, without coloured fringes; the veil is ours.

Shapes: C channels, H W.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from relume.data.degradations.base import (
    SameSizeConfig,
    each_picture,
    picture_generator,
)
from relume.data.degradations.blur import convolve
from relume.data.degradations.fields import gaussian_blurred, scattered
from relume.data.degradations.haze import hazy
from relume.data.degradations.motion_blur import kernel_of
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
"""Differently shaped flakes in a layer."""


class SnowConfig(SameSizeConfig):
    """Settings of snow.

    Attributes:
        strength: multiplies the flakes' opacity and the veil's density.
        density: flakes of the nearest layer in a megapixel; farther layers hold more; at most 10,000.
        largest: radius of the nearest flakes, pixels; 0.1 to 50.
        smallest: radius of the farthest flakes, pixels; 0.1 to 50.
        opacity: of flakes.
        wind: degrees from the vertical to which they fall; -180 to 180.
        fall: way of a flake while the shutter is open, in its own diameters; at most 10.
        layers: how many distances; 1 to 32.
        veil: density of what is too far to be seen singly; a share exp(-veil) of the picture passes; at
            most 10.
    """

    name: Literal["snow"] = "snow"
    strength: Strength = 1.0
    density: Annotated[NonNegativeRange, within(0, 10000)] = (30.0, 120.0)
    largest: Annotated[PositiveRange, within(0.1, 50)] = (5.0, 11.0)
    smallest: Annotated[PositiveRange, within(0.1, 50)] = (0.8, 1.3)
    opacity: ShareRange = (0.6, 0.95)
    wind: Annotated[AnyRange, within(-180, 180)] = (-40.0, 40.0)
    fall: Annotated[NonNegativeRange, within(0, 10)] = (0.2, 1.5)
    layers: Annotated[int, Field(ge=1, le=32)] = 5
    veil: Annotated[NonNegativeRange, within(0, 10)] = (0.05, 0.4)

    def damage(self) -> Snow:
        return Snow(self)


class Snow:
    """Lets it snow on each picture; `margin` is 0."""

    margin = 0

    def __init__(self, config: SnowConfig) -> None:
        self.config = config

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def masks(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the flakes' opacity m `B 1 H W` that a call with a generator in this state has."""
        height, width = high.shape[-2:]
        return torch.stack([self._flakes(height, width, picture_generator(generator)) for _ in high]).to(high)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        height, width = picture.shape[-2:]
        flakes = self._flakes(height, width, random).to(picture.device)
        veil = self.config.strength * uniform(self.config.veil, random)
        airlight, white = uniform((0.75, 0.9), random), uniform((0.92, 1.0), random)
        veiled = hazy(picture, picture.new_tensor(math.exp(-veil)), airlight)
        return veiled * (1 - flakes) + white * flakes

    def _flakes(self, height: int, width: int, random: torch.Generator) -> Tensor:
        config = self.config
        density, opacity = uniform(config.density, random), uniform(config.opacity, random)
        largest, smallest = uniform(config.largest, random), uniform(config.smallest, random)
        wind, fall = uniform(config.wind, random), uniform(config.fall, random)
        passing = torch.ones(height, width)
        for layer in range(config.layers):
            nearness = 1 - layer / max(1, config.layers - 1)
            radius = smallest * (largest / smallest) ** nearness
            # The lens is focused on what lies behind the nearest flakes.
            defocus = (0.1 + 0.5 * nearness**2) * radius
            count = density * (largest / radius) ** 1.5 / _KINDS
            for _ in range(_KINDS):
                angle = math.radians(wind + 12 * normal(random))
                own = radius * uniform((0.75, 1.3), random)
                kernel = flake(own, defocus, 2 * own * fall, angle, random)
                layered = scattered(height, width, kernel, count=count, random=random)
                passing *= 1 - (config.strength * opacity * layered).clamp(max=1)
        return (1 - passing).unsqueeze(0)


def flake(radius: float, defocus: float, fall: float, angle: float, random: torch.Generator) -> Tensor:
    """Return one flake's opacity `h w`, odd sides, 0..1.

    Args:
        radius: mean radius, pixels.
        defocus: standard deviation of the blur, pixels.
        fall: way while the shutter is open, pixels.
        angle: of that way from the vertical, radians.
        random: shapes the outline.
    """
    reach = math.ceil(1.5 * radius + 3 * defocus + fall / 2) + 1
    fine = 3
    grid = torch.arange(-reach * fine - 1.0, reach * fine + 2) / fine
    rows, columns = grid.unsqueeze(1), grid.unsqueeze(0)
    turn = torch.atan2(rows, columns)
    outline = torch.full_like(turn, radius)
    for number in range(2, 6):
        outline += (
            radius * 0.35 / number * normal(random) * torch.cos(number * turn + uniform((0, 6.28), random))
        )
    disc = (torch.hypot(rows, columns) <= outline).float().unsqueeze(0)
    soft = gaussian_blurred(F.avg_pool2d(disc, fine), defocus)
    if fall:
        way = torch.linspace(0, fall, 128).unsqueeze(1) * torch.tensor([math.cos(angle), math.sin(angle)])
        soft = convolve(soft, kernel_of(way))
    return soft[0].clamp(0, 1)


CONFIG = SnowConfig
