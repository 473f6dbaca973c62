"""Motion blur: the camera, or what it looked at, moved while the shutter was open.

The blur kernel is the path that a point of light draws on the sensor: straight where the camera pans or
the subject passes, a wandering curve where a hand trembles. The curve is a random walk as that of Boracchi
and Foi, IEEE TIP 2012 ("Modeling the performance of image restoration from motion blur"), which
Kupyn et al., CVPR 2018, arXiv:1711.07064, algorithm 1, made popular: a velocity of constant size that
turns a little at each step (tremor), is drawn back to where it began (the hand corrects) and, now and
then, is flung round (a jolt).

Departs from the papers: light is averaged as light, not as stored values, so highlights leave streaks; the
kernel's centre of gravity is kept in place, so input and target stay aligned; no noise is added (that is
`camera-noise`); the walk's constants are ours.

Shapes: C channels, H W, h w the kernel's sides, P points of the path.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from relume.data.degradations.base import SameSizeConfig, each_picture
from relume.data.degradations.blur import convolve
from relume.data.degradations.light import to_linear, to_stored
from relume.data.degradations.ranges import PositiveRange, Share, Strength, normal, uniform, within

_POINTS = 512


class MotionBlurConfig(SameSizeConfig):
    """Settings of motion blur.

    Attributes:
        strength: multiplies the length of the path.
        length: of the path, in pixels; at most 500.
        shaken: how often the path is that of a trembling hand, 0..1; else it is straight.
    """

    name: Literal["motion-blur"] = "motion-blur"
    strength: Strength = 1.0
    length: Annotated[PositiveRange, within(0, 500)] = (8.0, 30.0)
    shaken: Share = 0.6

    def damage(self) -> MotionBlur:
        return MotionBlur(self)


class MotionBlur:
    """Blurs each picture along a path of its own.

    Attributes:
        margin: how far a path reaches from its centre of gravity: half its length, and a pixel.
    """

    def __init__(self, config: MotionBlurConfig) -> None:
        self.config = config
        longest = config.strength * config.length[1]
        self.margin = math.ceil(longest / 2) + 1 if longest else 0

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        config = self.config
        length = config.strength * uniform(config.length, random)
        path = shaken_path(random) if uniform((0, 1), random) < config.shaken else straight_path(random)
        if not length:
            return picture
        return to_stored(convolve(to_linear(picture), kernel_of(length * path)))


def straight_path(random: torch.Generator) -> Tensor:
    """Return a straight path `P 2` of length 1 in a random direction."""
    angle = uniform((0, math.pi), random)
    return torch.linspace(0, 1, _POINTS).unsqueeze(1) * torch.tensor([math.sin(angle), math.cos(angle)])


def shaken_path(random: torch.Generator) -> Tensor:
    """Return the path `P 2` of length 1 that a trembling hand draws."""
    tremor, pull, jolts = (uniform((0, most), random) for most in (0.12, 0.06, 3.0))
    step = 1 / (_POINTS - 1)
    angle = uniform((0, 2 * math.pi), random)
    kicks = (tremor * torch.randn(_POINTS, 2, generator=random)).tolist()
    chances = torch.rand(_POINTS, generator=random).tolist()
    y = x = 0.0
    points = [(y, x)]
    for (kick_y, kick_x), chance in zip(kicks[1:], chances[1:], strict=True):
        if chance < jolts * step:
            angle += math.pi + 0.5 * normal(random)
        angle = math.atan2(math.sin(angle) + kick_y - pull * y, math.cos(angle) + kick_x - pull * x)
        y, x = y + step * math.sin(angle), x + step * math.cos(angle)
        points.append((y, x))
    return torch.tensor(points)


def kernel_of(path: Tensor) -> Tensor:
    """Return the kernel `h w`, odd sides and sum 1, of a path `P 2` (row, column) in pixels.

    Each point's light is shared by the four pixels around it. The centre of gravity is in the middle.
    """
    path = path - path.mean(dim=0)
    reach = math.ceil(float(path.abs().max()))
    side = 2 * reach + 1
    corner = path.floor().clamp(-reach, reach)
    share = path - corner
    kernel = torch.zeros(side * side)
    for down in (0, 1):
        for right in (0, 1):
            row = share[:, 0] if down else 1 - share[:, 0]
            column = share[:, 1] if right else 1 - share[:, 1]
            place = (corner + torch.tensor([down, right])).clamp(-reach, reach).long() + reach
            kernel.index_add_(0, place[:, 0] * side + place[:, 1], row * column)
    return (kernel / kernel.sum()).view(side, side)


CONFIG = MotionBlurConfig
