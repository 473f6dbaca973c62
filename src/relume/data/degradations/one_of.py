"""One damage among several for each picture, and which it was: mixed batches for networks that restore all.

All-in-one restoration trains on such batches; pre-training by classification (`train.strategies.dcpt`) also
asks which damage it was. Any degradations that keep the size can be mixed; each is as likely as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from relume.core.choices import ChosenFrom
from relume.data.degradations.base import (
    Degradation,
    DegradationConfig,
    Located,
    Place,
    SameSizeConfig,
    Size,
    located,
    picture_generator,
)
from relume.data.degradations.haze import HazeConfig
from relume.data.degradations.low_light import LowLightConfig
from relume.data.degradations.motion_blur import MotionBlurConfig
from relume.data.degradations.noise import NoiseConfig
from relume.data.degradations.rain import RainConfig

Kind = Annotated[DegradationConfig, ChosenFrom("relume.data.degradations", "degradation")]


class OneOfConfig(SameSizeConfig):
    """Which damages there are; by default the five of all-in-one restoration.

    Attributes:
        kinds: degradations that keep the size; a picture's kind is its number in this list, from 0.
    """

    name: Literal["one-of"] = "one-of"
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = (
        HazeConfig(),
        RainConfig(),
        NoiseConfig(level=(15, 50)),
        MotionBlurConfig(),
        LowLightConfig(),
    )

    @field_validator("kinds")
    @classmethod
    def _keep_the_size(cls, kinds: tuple[DegradationConfig, ...]) -> tuple[DegradationConfig, ...]:
        for kind in kinds:
            if not kind.keeps_size:
                name = type(kind).model_fields["name"].default
                raise ValueError(f"{name} makes pictures smaller, so it cannot be mixed; leave it out")
        return kinds

    def damage(self) -> OneOf:
        """Return the degradation."""
        return OneOf([kind.build(1) for kind in self.kinds])


class OneOf:
    """Damages each picture in one way, drawn evenly; `margin` is the widest of all.

    Args:
        kinds: the ways.
    """

    def __init__(self, kinds: list[Degradation]) -> None:
        self.kinds = kinds
        self.margin = max(kind.margin for kind in kinds)

    def check(self, sizes: Callable[[], Iterable[tuple[Path, Size]]]) -> None:
        """See whether there is what each of the ways needs of each photo (`base.Located`)."""
        for kind in self.kinds:
            if isinstance(kind, Located):
                kind.check(sizes)

    def at(self, place: Place) -> OneOf:
        """Return the same for pictures of a place (`base.Located`)."""
        return OneOf([located(kind, place) for kind in self.kinds])

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        """Map `B C H W` to the same, damaged."""
        return self.tell(high, generator=generator)[0]

    def tell(self, high: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Map `B C H W` to the same, damaged, and the numbers of what was done, `B` of int64."""
        damaged, kinds = [], []
        for picture in high:
            own = picture_generator(generator)
            kind = int(torch.randint(len(self.kinds), (), generator=own))
            damaged.append(self.kinds[kind](picture[None], generator=own))
            kinds.append(kind)
        return torch.cat(damaged), torch.tensor(kinds)


CONFIG = OneOfConfig
