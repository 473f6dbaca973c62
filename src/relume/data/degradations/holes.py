"""Holes: parts of the picture are missing, as scratches, boxes or masks from a folder.

Brush strokes are those of free-form inpainting (Yu et al., ICCV 2019, arXiv:1806.03589, algorithm 1): a pen
of random width goes on in random turns, and back now and then. Strokes or boxes are added until the share
asked for is covered. Whoever needs the mask asks `Holes.masks` with a generator in the same state.

Departs from the paper: coverage is what is asked for, not the number of strokes.

Shapes: B batch, C channels, H W.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from pydantic import model_validator
from torch import Tensor

from relume.core.errors import DataError
from relume.core.pictures import SUFFIXES, pictures_in, read
from relume.data.degradations.base import (
    SameSizeConfig,
    each_picture,
    picture_generator,
)
from relume.data.degradations.light import luminance
from relume.data.degradations.ranges import ShareRange, uniform

_MOST = 2000
"""Strokes or boxes after which a picture counts as covered."""


class HolesConfig(SameSizeConfig):
    """Settings of holes.

    Attributes:
        shape: "strokes" of a brush, "boxes", or masks from a "folder".
        coverage: share of the picture that is missing; masks from a folder have their own.
        width: of strokes, and a quarter of a box's sides, as a share of the picture's shorter side.
        folder: pictures whose light parts are holes; each is flipped and cut to shape by chance.
        fill: what stands in a hole: the mean colour of what is left, black, gray or white.
    """

    name: Literal["holes"] = "holes"
    shape: Literal["strokes", "boxes", "folder"] = "strokes"
    coverage: ShareRange = (0.1, 0.4)
    width: ShareRange = (0.03, 0.09)
    folder: Path | None = None
    fill: Literal["mean", "black", "gray", "white"] = "mean"

    @model_validator(mode="after")
    def _folder_fits_shape(self) -> Self:
        if (self.shape == "folder") != (self.folder is not None):
            raise ValueError('shape "folder" and the setting folder belong together; give both or neither')
        return self

    def damage(self) -> Holes:
        """Return the degradation.

        Raises:
            DataError: the folder holds no picture.
        """
        return Holes(self)


class Holes:
    """Takes parts out of each picture; `margin` is 0."""

    margin = 0

    def __init__(self, config: HolesConfig) -> None:
        self.config = config
        self._files: list[Path] = []
        if config.folder is not None:
            if not config.folder.is_dir():
                raise DataError(f"{config.folder} is not a folder; holes.folder takes a folder of masks")
            self._files = pictures_in(config.folder, deep=True)
            if not self._files:
                raise DataError(f"{config.folder} holds no picture ({', '.join(sorted(SUFFIXES))})")

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def masks(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return the masks `B 1 H W`, 1 in holes, that a call with a generator in this state makes."""
        height, width = high.shape[-2:]
        made = [self._mask(height, width, picture_generator(generator)) for _ in high]
        return torch.stack(made).to(high.device)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        height, width = picture.shape[-2:]
        mask = self._mask(height, width, random).to(picture.device)
        kept = 1 - mask
        if self.config.fill == "mean":
            colour = (picture * kept).sum(dim=(1, 2), keepdim=True) / kept.sum().clamp(min=1)
        else:
            colour = picture.new_tensor({"black": 0.0, "gray": 0.5, "white": 1.0}[self.config.fill])
        return picture * kept + colour * mask

    def _mask(self, height: int, width: int, random: torch.Generator) -> Tensor:
        if self.config.shape == "folder":
            chosen = self._files[int(torch.randint(len(self._files), (), generator=random))]
            return _fitted(luminance(read(chosen).pixels), height, width, random)
        coverage = uniform(self.config.coverage, random)
        side = min(height, width)

        def thickness() -> float:
            return max(1.0, side * uniform(self.config.width, random))

        draw = _stroke if self.config.shape == "strokes" else _box
        return _covered(height, width, coverage, random, draw, thickness)


_Draw = Callable[[Image.Image, float, torch.Generator], list[Callable[[ImageDraw.ImageDraw], None]]]


def _covered(
    height: int,
    width: int,
    coverage: float,
    random: torch.Generator,
    draw: _Draw,
    thickness: Callable[[], float],
) -> Tensor:
    """Draw until the coverage is reached; a larger coverage so holds the whole of a smaller one."""
    image = Image.new("L", (width, height))
    pen = ImageDraw.Draw(image)
    goal = coverage * height * width
    for _ in range(_MOST):
        for piece in draw(image, thickness(), random):
            if np.count_nonzero(np.asarray(image)) >= goal:
                return torch.from_numpy(np.array(image, dtype=np.float32)).unsqueeze(0)
            piece(pen)
    return torch.from_numpy(np.array(image, dtype=np.float32)).unsqueeze(0)


def _stroke(
    image: Image.Image, thickness: float, random: torch.Generator
) -> list[Callable[[ImageDraw.ImageDraw], None]]:
    """Return a stroke's pieces, each a line with a round end."""
    x, y = (uniform((0, side), random) for side in image.size)
    angle = uniform((0, 2 * math.pi), random)
    pieces = []
    for _ in range(6 + int(torch.randint(15, (), generator=random))):
        angle += uniform((-0.3 * math.pi, 0.3 * math.pi), random)
        # Now and then the pen goes back, nearly on its own line.
        angle += math.pi if uniform((0, 1), random) < 0.15 else 0
        length = thickness * uniform((0.5, 2), random)
        end = (x + length * math.cos(angle), y + length * math.sin(angle))
        pieces.append(_line((x, y), end, thickness))
        x, y = end
    return pieces


def _line(
    start: tuple[float, float], end: tuple[float, float], thickness: float
) -> Callable[[ImageDraw.ImageDraw], None]:
    def draw(pen: ImageDraw.ImageDraw) -> None:
        pen.line([start, end], fill=1, width=max(1, round(thickness)))
        for x, y in (start, end):
            half = thickness / 2
            pen.ellipse([x - half, y - half, x + half, y + half], fill=1)

    return draw


def _box(
    image: Image.Image, thickness: float, random: torch.Generator
) -> list[Callable[[ImageDraw.ImageDraw], None]]:
    """Return one box as a stroke's single piece."""
    x, y = (uniform((0, side), random) for side in image.size)
    wide, high = (4 * thickness * uniform((0.5, 1.5), random) for _ in range(2))
    return [lambda pen: pen.rectangle([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], fill=1)]


def _fitted(mask: Tensor, height: int, width: int, random: torch.Generator) -> Tensor:
    """Flip a mask `1 h w` by chance, cut the picture's shape out of it and resize that; 0 and 1 only."""
    flips = [axis for axis in (1, 2) if torch.randint(2, (), generator=random)]
    mask = mask.flip(flips)
    scale = min(mask.shape[1] / height, mask.shape[2] / width)
    rows, columns = (max(1, round(scale * side)) for side in (height, width))
    top, left = (
        int(torch.randint(size - part + 1, (), generator=random))
        for size, part in zip(mask.shape[1:], (rows, columns), strict=True)
    )
    part = mask[:, top : top + rows, left : left + columns]
    resized = F.interpolate(part.unsqueeze(0), size=(height, width), mode="nearest-exact")
    return (resized[0] > 0.5).float()


CONFIG = HolesConfig
