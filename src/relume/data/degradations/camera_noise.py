"""Camera noise: what a sensor adds in the dark or at high ISO, as it looks after the camera's processing.

The picture is taken back to what the sensor saw (linear light, without the white balance's gains), noise is
added there with variance `shot · x + read`, and gains and gamma are applied again: after Brooks et al.,
"Unprocessing images for learned raw denoising", CVPR 2019, arXiv:1811.11127, sec. 3, and with its
line between the two: log read = 2.18 log shot + 1.20, ± 0.26. The sensor has one colour a pixel; its noise
is interpolated to three as a camera does it (bilinearly), which gives it its grain of coloured specks. On
top come wide blotches of colour, which are left when a camera has removed the finer noise.

Departs from the paper: only the noise passes through mosaic and interpolation, so that the picture keeps its
detail; no colour matrix and no tone curve; the blotches are ours.

Shapes: C channels, H W.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from relume.data.degradations.base import SameSizeConfig, each_picture
from relume.data.degradations.light import luminance, shot_and_read_noise, to_linear, to_stored
from relume.data.degradations.ranges import (
    NonNegativeRange,
    PositiveRange,
    Strength,
    log_uniform,
    normal,
    uniform,
    within,
)

_BLOTCH = 12
"""Pixels from one blotch to the next."""


class CameraNoiseConfig(SameSizeConfig):
    """Settings of camera noise.

    Attributes:
        strength: multiplies the noise's standard deviation.
        shot: light of one photon as a share of a full sensor, drawn by its logarithm: about 0.0003 at
            ISO 100, 0.01 at ISO 3200 of a small sensor. At most 1. The noise of reading
            follows from it.
        red_gain: of the white balance, against green; 0.1 to 10.
        blue_gain: likewise; 0.1 to 10.
        blotches: strength of the wide colour noise, as a share of the finer; at most 10.
    """

    name: Literal["camera-noise"] = "camera-noise"
    strength: Strength = 1.0
    shot: Annotated[PositiveRange, within(0, 1)] = (3e-4, 1.2e-2)
    red_gain: Annotated[PositiveRange, within(0.1, 10)] = (1.9, 2.4)
    blue_gain: Annotated[PositiveRange, within(0.1, 10)] = (1.5, 1.9)
    blotches: Annotated[NonNegativeRange, within(0, 10)] = (0.0, 0.3)

    def damage(self) -> CameraNoise:
        return CameraNoise(self)


class CameraNoise:
    """Adds a sensor's noise; `margin` is 0."""

    margin = 0

    def __init__(self, config: CameraNoiseConfig) -> None:
        self.config = config

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        config = self.config
        shot = log_uniform(config.shot, random)
        read = math.exp(2.18 * math.log(shot) + 1.20 + 0.26 * normal(random))
        red, blue = uniform(config.red_gain, random), uniform(config.blue_gain, random)
        blotches = uniform(config.blotches, random)
        linear = to_linear(picture)
        if picture.shape[0] == 1:
            noise = shot_and_read_noise(linear, shot=shot, read=read, random=random)
        else:
            gains = linear.new_tensor([red, 1.0, blue]).view(3, 1, 1)
            raw = linear / gains
            noise = gains * _interpolated(
                shot_and_read_noise(raw, shot=shot, read=read, random=random), random
            )
            level = gains * (shot * raw + read).sqrt()
            noise = noise + blotches * _blotches(level, random)
        return to_stored(linear + config.strength * noise)


def _interpolated(noise: Tensor, random: torch.Generator) -> Tensor:
    """Keep of `3 H W` what a Bayer mosaic sees, one colour a pixel, and fill the rest by interpolation."""
    height, width = noise.shape[-2:]
    top, left = (int(torch.randint(2, (), generator=random)) for _ in range(2))
    rows = ((torch.arange(height, device=noise.device) + top) % 2).view(-1, 1)
    columns = ((torch.arange(width, device=noise.device) + left) % 2).view(1, -1)
    seen = torch.stack([(1 - rows) * (1 - columns), (rows + columns) % 2, rows * columns]).to(noise)
    weights = noise.new_tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(3, 1, 3, 3).clone()
    weights[1, 0] = noise.new_tensor([[0, 1, 0], [1, 4, 1], [0, 1, 0]])
    both = torch.stack([seen * noise, seen])
    total, weight = F.conv2d(both, weights, padding=1, groups=3)
    # A picture of one row or column has colours that its mosaic never sees.
    return torch.where(weight > 0, total / weight.clamp(min=1), noise)


def _blotches(level: Tensor, random: torch.Generator) -> Tensor:
    """Return wide noise of standard deviation about `level` (`3 H W`), of colour alone: no brightness."""
    height, width = level.shape[-2:]
    rows, columns = (side // _BLOTCH + 2 for side in (height, width))
    coarse = torch.randn(1, 3, rows, columns, generator=random)
    noise = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)[0]
    noise = noise.to(level.device) * level
    return noise - luminance(noise)


CONFIG = CameraNoiseConfig
