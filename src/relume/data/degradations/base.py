"""What every degradation is: a seeded function of a batch of clean pictures, and the settings that build it.

Shapes: B batch, C channels (1 or 3), H W the size of the damaged picture, s scale. Values are
float32 0..1 as stored in the file (gamma-encoded), before and after.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from relume.core.config import Config
from relume.core.errors import ConfigError


class Degradation(Protocol):
    """What happened to a clean picture to make the input.

    All that is random is drawn from the generator (on the CPU): the same generator state gives the
    same result.

    Attributes:
        margin: low-resolution pixels at each border that the patch's edge, rather than the photo
            around it, has shaped; who cuts patches cuts these off afterwards.
    """

    @property
    def margin(self) -> int: ...

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        """Map `B C sH sW` to `B C H W`, both float32 0..1 and on one device; the input is left as it is."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A degradation of several kinds that tells which one happened to each picture.

    Attributes:
        kinds: what the numbers stand for, in their order.
    """

    @property
    def kinds(self) -> Sequence[object]: ...

    def tell(self, high: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return what calling it returns, and the number of each picture's kind from 0, `B` of int64."""
        ...


Size = tuple[int, int]
"""Height and width, pixels."""


@dataclass(frozen=True)
class Place:
    """Where a clean picture lies in its photo: a part is cut out, then turned, then mirrored.

    Attributes:
        photo: the photo's file.
        size: of the whole photo.
        top: first row of the part.
        left: first column of the part.
        part: size of the part before it is turned.
        turns: quarter turns against the clock.
        mirrored: whether left and right are exchanged, after turning.
    """

    photo: Path
    size: Size
    top: int
    left: int
    part: Size
    turns: int = 0
    mirrored: bool = False

    @classmethod
    def whole(cls, photo: Path, size: Size) -> Place:
        """Return that of a photo itself, or of what is left of it when rows and columns at the end go."""
        return cls(photo, size, 0, 0, size)

    def cut(self, photo: Tensor) -> Tensor:
        """Return the picture that lies there in `… H W` of the photo's size."""
        height, width = self.part
        found = photo[..., self.top : self.top + height, self.left : self.left + width]
        found = torch.rot90(found, self.turns, (-2, -1))
        return (found.flip(-1) if self.mirrored else found).contiguous()


@runtime_checkable
class Located(Protocol):
    """A degradation that knows more of a photo than its pixels, from files named as the photo is."""

    def check(self, sizes: Callable[[], Iterable[tuple[Path, Size]]]) -> None:
        """See before the work whether there is what each photo needs.

        Args:
            sizes: gives the photos' files and sizes, upright.

        Raises:
            DataError: something is missing or does not fit.
        """
        ...

    def at(self, place: Place) -> Degradation:
        """Return the degradation for pictures of this place.

        Raises (when it is called):
            DataError: what it needs of the photo is missing or does not fit.
        """
        ...


def located(degradation: Degradation, place: Place) -> Degradation:
    """Return a degradation for pictures of a place, whether it asks for that or not."""
    return degradation.at(place) if isinstance(degradation, Located) else degradation


class DegradationConfig(Config):
    """Settings of one degradation; a subclass adds `name: Literal["x"] = "x"`, which recipes choose by.

    Each idea's file exports `CONFIG`, its subclass, and is found by it.

    Attributes:
        keeps_size: whether the damaged picture is as large as the clean one, so that only scale 1 fits.
    """

    keeps_size: ClassVar[bool] = False

    @abstractmethod
    def build(self, scale: int) -> Degradation:
        """Return the degradation for high-resolution pictures `scale` times as long as the damaged ones.

        Raises:
            ConfigError: the degradation keeps the size and `scale` is not 1.
        """


class SameSizeConfig(DegradationConfig):
    """Settings of a damage that keeps the size."""

    keeps_size: ClassVar[bool] = True

    def build(self, scale: int) -> Degradation:
        """Return the degradation.

        Raises:
            ConfigError: `scale` is not 1.
        """
        if scale != 1:
            name = type(self).model_fields["name"].default
            raise ConfigError(f"degradation {name} keeps the size, so it takes scale 1, not {scale}")
        return self.damage()

    @abstractmethod
    def damage(self) -> Degradation:
        """Return the degradation."""


def each_picture(
    high: Tensor, generator: torch.Generator, damage: Callable[[Tensor, torch.Generator], Tensor]
) -> Tensor:
    """Damage a batch picture by picture, each with a generator of its own.

    The given generator is asked for one number a picture, so a batch of B is damaged exactly as B
    batches of one, one after the other, would be; and what one picture draws shifts no other's.

    Args:
        high: `B C H W`.
        generator: gives each picture's seed.
        damage: maps `C H W` and the picture's own generator to `C H W`, which is clamped to 0..1.
    """
    damaged = [damage(picture, picture_generator(generator)) for picture in high]
    return torch.stack(damaged).clamp_(0, 1)


def picture_generator(generator: torch.Generator) -> torch.Generator:
    """Return the next picture's own generator, seeded with one number of the given one."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
