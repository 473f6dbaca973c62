"""Cast shadow: something out of the picture keeps the sun off a part of it.

Where the sun is kept off, only the sky's light is left, weaker and bluer: in linear light
I_c = J_c (1 - m (1 - a_c)), with m the soft-edged shadow 0..1 and a_c the share of channel c that the sky
gives, as in Inoue and Yamasaki, IEEE TCSVT 2021, arXiv:2101.01713 (there an affine darkening of each
channel). The sun is no point, so an edge is soft (penumbra), the more the farther away what casts it.

Departs from the paper: shapes are drawn here instead of rendered from 3-D models.

Shapes: C channels, H W.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from pydantic import Field
from torch import Tensor

from relume.data.degradations.base import (
    SameSizeConfig,
    each_picture,
    picture_generator,
)
from relume.data.degradations.fields import fractal, gaussian_blurred
from relume.data.degradations.light import to_linear, to_stored
from relume.data.degradations.ranges import (
    NonNegativeRange,
    ShareRange,
    Strength,
    uniform,
    within,
)

_Shape = Literal["blob", "polygon", "foliage"]


class ShadowConfig(SameSizeConfig):
    """Settings of cast shadows.

    Attributes:
        strength: multiplies the darkening.
        shapes: what casts the shadow, drawn for each picture: a round "blob", a straight-edged "polygon",
            or "foliage", with gaps of light.
        darkness: share of the light that the sun gave.
        blueness: how much bluer, and less red, the sky's light is.
        penumbra: softness of the edge as a share of the picture's shorter side; at most 0.25.
        area: of the shadow, as a share of the picture, about.
    """

    name: Literal["shadow"] = "shadow"
    strength: Strength = 1.0
    shapes: tuple[_Shape, ...] = Field(("blob", "polygon", "foliage"), min_length=1)
    darkness: ShareRange = (0.5, 0.8)
    blueness: ShareRange = (0.0, 0.2)
    penumbra: Annotated[NonNegativeRange, within(0, 0.25)] = (0.003, 0.012)
    area: ShareRange = (0.2, 0.5)

    def damage(self) -> Shadow:
        return Shadow(self)


class Shadow:
    """Casts a shadow on each picture; `margin` is 0."""

    margin = 0

    def __init__(self, config: ShadowConfig) -> None:
        self.config = config

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def masks(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the shadows m `B 1 H W`, 0..1, that a call with a generator in this state casts."""
        height, width = high.shape[-2:]
        made = [self._shadow(height, width, picture_generator(generator)) for _ in high]
        return torch.stack(made).to(high.device)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        config = self.config
        height, width = picture.shape[-2:]
        shadow = self._shadow(height, width, random).to(picture.device)
        sky = 1 - uniform(config.darkness, random)
        blueness = uniform(config.blueness, random)
        casts = (1 - blueness, 1.0, 1 + blueness) if picture.shape[0] == 3 else (1.0,)
        kept_off = picture.new_tensor([max(0.0, 1 - sky * cast) for cast in casts]).view(-1, 1, 1)
        lit = (1 - config.strength * shadow * kept_off).clamp(min=0)
        return to_stored(to_linear(picture) * lit)

    def _shadow(self, height: int, width: int, random: torch.Generator) -> Tensor:
        config = self.config
        shape = config.shapes[int(torch.randint(len(config.shapes), (), generator=random))]
        area, penumbra = uniform(config.area, random), uniform(config.penumbra, random)
        draw = {"blob": _blob, "polygon": _polygon, "foliage": _foliage}[shape]
        hard = draw(height, width, area, random)
        sigma = penumbra * min(height, width)
        # Near its foot a shadow is sharp, far from it soft.
        foot = fractal(height, width, random, cells=1).unsqueeze(0)
        return torch.lerp(gaussian_blurred(hard, sigma), gaussian_blurred(hard, 4 * sigma), foot).clamp(0, 1)


def _blob(height: int, width: int, area: float, random: torch.Generator) -> Tensor:
    """Return a round shape whose outline swings in and out."""
    count = 96
    swings = [
        (number, uniform((0.05, 0.35), random) / number, uniform((0, 2 * math.pi), random))
        for number in range(1, 7)
    ]
    angles = [2 * math.pi * index / count for index in range(count)]
    radii = [1 + sum(size * math.cos(k * angle + phase) for k, size, phase in swings) for angle in angles]
    return _filled(height, width, area, angles, radii, random)


def _polygon(height: int, width: int, area: float, random: torch.Generator) -> Tensor:
    """Return a shape of four to seven straight edges, as houses and walls cast it."""
    count = 4 + int(torch.randint(4, (), generator=random))
    angles = [2 * math.pi * (index + uniform((-0.35, 0.35), random)) / count for index in range(count)]
    return _filled(height, width, area, angles, [uniform((0.6, 1.3), random) for _ in angles], random)


def _filled(
    height: int, width: int, area: float, angles: list[float], radii: list[float], random: torch.Generator
) -> Tensor:
    """Fill an outline round a random place near the picture's border, since what casts it stands outside."""
    side = math.radians(uniform((0, 360), random))
    reach = uniform((0.3, 0.5), random)
    y, x = height * (0.5 + reach * math.sin(side)), width * (0.5 + reach * math.cos(side))
    # A good third of it lies outside.
    unit = math.sqrt(1.5 * area * height * width / math.pi)
    stretch = uniform((0.6, 1.6), random)
    image = Image.new("L", (width, height))
    outline = [
        (x + unit * stretch * radius * math.cos(angle), y + unit / stretch * radius * math.sin(angle))
        for angle, radius in zip(angles, radii, strict=True)
    ]
    ImageDraw.Draw(image).polygon(outline, fill=1)
    return torch.from_numpy(np.array(image, dtype=np.float32)).unsqueeze(0)


def _foliage(height: int, width: int, area: float, random: torch.Generator) -> Tensor:
    """Return the dense parts of a cloud-like field."""
    field = fractal(height, width, random, cells=6, roughness=0.6)
    threshold = field.flatten().quantile(1 - area) if field.numel() < 2**24 else 1 - area
    return (field > threshold).float().unsqueeze(0)


CONFIG = ShadowConfig
