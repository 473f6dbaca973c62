"""Low light: too little exposure, with the sensor's noise that then shows.

In linear light, x → x · 2^(-stops), a lamp's warm cast, noise of variance `shot · x + read` that does not
shrink with the light, and, on the stored values, a darker tone curve x^gamma. The light's share and the
gamma are the two factors of Lv et al., IJCV 2021, arXiv:1908.00682 (there β (α x)^γ on stored
values); noise as in Brooks et al., CVPR 2019, arXiv:1811.11127.

Departs from the papers: light is reduced as light and counted in stops; the cast is ours.

Shapes: C channels, H W.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from relume.data.degradations.base import SameSizeConfig, each_picture
from relume.data.degradations.light import shot_and_read_noise, to_linear, to_stored
from relume.data.degradations.ranges import (
    AnyRange,
    NonNegativeRange,
    PositiveRange,
    Strength,
    uniform,
    within,
)


class LowLightConfig(SameSizeConfig):
    """Settings of low light.

    Attributes:
        strength: multiplies the stops, the cast and the noise's standard deviation, and is the exponent of
            the gamma.
        stops: of exposure that are missing; each halves the light; at most 20.
        warmth: stops by which red gains on green and blue loses; negative for a cold cast; -3 to 3.
        gamma: of the tone curve on stored values; above 1 darkens; 0.1 to 10.
        shot: light of one photon as a share of a full sensor; at most 1.
        read: variance of the noise in the dark, of a full sensor's light squared; at most 1.
    """

    name: Literal["low-light"] = "low-light"
    strength: Strength = 1.0
    stops: Annotated[NonNegativeRange, within(0, 20)] = (2.0, 4.5)
    warmth: Annotated[AnyRange, within(-3, 3)] = (-0.1, 0.35)
    gamma: Annotated[PositiveRange, within(0.1, 10)] = (1.0, 1.2)
    shot: Annotated[NonNegativeRange, within(0, 1)] = (1e-4, 1e-3)
    read: Annotated[NonNegativeRange, within(0, 1)] = (2e-7, 4e-6)

    def damage(self) -> LowLight:
        return LowLight(self)


class LowLight:
    """Darkens each picture; `margin` is 0."""

    margin = 0

    def __init__(self, config: LowLightConfig) -> None:
        self.config = config

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        config, strength = self.config, self.config.strength
        stops, warmth = uniform(config.stops, random), uniform(config.warmth, random)
        gamma = uniform(config.gamma, random)
        shot, read = uniform(config.shot, random), uniform(config.read, random)
        casts = (warmth, 0.0, -warmth) if picture.shape[0] == 3 else (0.0,)
        gains = picture.new_tensor([2 ** (strength * (cast - stops)) for cast in casts]).view(-1, 1, 1)
        light = to_linear(picture) * gains
        light = light + strength * shot_and_read_noise(light, shot=shot, read=read, random=random)
        return to_stored(light) ** (gamma**strength)


CONFIG = LowLightConfig
