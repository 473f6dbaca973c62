"""The sinc filter: an ideal low pass, which rings and overshoots as sharpening and JPEG do.

Wang et al., ICCVW 2021, arXiv:2107.10833, section 3.3: k(i, j) = ωc J1(ωc r) / (2π r) with
r = sqrt(i² + j²), J1 the Bessel function of the first kind and order one, ωc the cutoff in radians a pixel.
The last filter of that paper's chain is the degradation here: a kernel of side 7, 9, … 21 and ωc in π/3..π.

Shapes: C channels, H W size, K side of a kernel, odd.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from relume.data.degradations.base import SameSizeConfig, each_picture
from relume.data.degradations.blur import convolve
from relume.data.degradations.ranges import PositiveRange, one_for_both, uniform

_Side = Annotated[int, Field(ge=3, le=99)]


def _odd(sides: tuple[int, int]) -> tuple[int, int]:
    if not sides[0] % 2 or not sides[1] % 2:
        raise ValueError("a kernel has a middle, so its side is odd, such as 7 or 21")
    if sides[0] > sides[1]:
        raise ValueError(f"the smaller side stands first, so [{sides[1]}, {sides[0]}]")
    return sides


def _reachable(cutoff: tuple[float, float]) -> tuple[float, float]:
    if cutoff[1] > math.pi:
        raise ValueError(f"a row of pixels holds nothing above π = {math.pi:.4f}, so no cutoff lies there")
    return cutoff


class SincConfig(SameSizeConfig):
    """Settings of ringing.

    Attributes:
        size: smallest and largest side of the kernel, odd pixels, 3 to 99; how far it rings.
        cutoff: ωc, radians a pixel, up to π, which keeps nearly all; less is softer and rings wider.
    """

    name: Literal["sinc"] = "sinc"
    size: Annotated[tuple[_Side, _Side], one_for_both, AfterValidator(_odd)] = (7, 21)
    cutoff: Annotated[PositiveRange, AfterValidator(_reachable)] = (math.pi / 3, math.pi)

    def damage(self) -> Ringing:
        """Return the degradation."""
        return Ringing(self)


class Ringing:
    """Filters each picture by a sinc kernel of its own.

    Attributes:
        margin: how far the largest kernel reaches.
    """

    def __init__(self, config: SincConfig) -> None:
        self.config = config
        self.margin = config.size[1] // 2

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        least, most = self.config.size
        side = least + 2 * int(torch.randint((most - least) // 2 + 1, (), generator=random))
        return convolve(picture, sinc(side, uniform(self.config.cutoff, random)))


def sinc(size: int, cutoff: float) -> Tensor:
    """Return the kernel, float64 `K K` on the CPU, sum one.

    Args:
        size: K, odd.
        cutoff: ωc; π keeps everything that a row of pixels can hold.
    """
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    r = torch.hypot(x[:, None], x)
    kernel = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r)
    middle = (size - 1) // 2
    kernel[middle, middle] = cutoff**2 / (4 * math.pi)  # the limit at r = 0
    return kernel / kernel.sum()


CONFIG = SincConfig
