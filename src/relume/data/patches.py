"""Random patches from folders of photos or cubes, each a pure function of (seed, index).

Nothing is drawn from a stream of random numbers, so a training that is killed
and resumed at any step sees the very patches that it would have seen, with any
number of loader workers.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import Dataset

from relume.core.config import Config
from relume.core.errors import DataError
from relume.core.pictures import CUBES, SUFFIXES, pictures_in, read, read_size
from relume.data.degradations.base import Place, Size
from relume.nn.colour import gray_levels_of


class PatchesConfig(Config):
    """Where training patches come from.

    Attributes:
        folders: folders of photos, searched to any depth.
        patch: side of the low-resolution patch, pixels.
        batch: patches in a batch, over all processes together.
        workers: loader processes; 0 loads in the training process, best on few cores.
        ahead: batches that each worker prepares ahead.
        memory_gib: decoded photos kept in memory by each process, GiB.
        held_out: share of each photo's rows, the lowest, from which no patch comes; validated on where no
            set is named.
    """

    folders: tuple[Path, ...] = ()
    patch: PositiveInt = 32
    batch: PositiveInt = 16
    workers: NonNegativeInt = 0
    ahead: PositiveInt = 2
    memory_gib: PositiveFloat = 4.0
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True)
class PhotoList:
    """The photos of a training, in a fixed order.

    Attributes:
        paths: every photo.
        digest: SHA-256 over names and sizes in bytes, to recognise the same photos again.
    """

    paths: tuple[Path, ...]
    digest: str

    @classmethod
    def find(cls, folders: tuple[Path, ...], *, cubes: bool = False) -> PhotoList:
        """List the photos of the folders, or the cubes.

        Raises:
            DataError: no folder is given, one is missing, or one holds no picture.
        """
        endings = CUBES if cubes else SUFFIXES
        if not folders:
            raise DataError("no training photos given; name a folder of photos with --data")
        paths: list[Path] = []
        digest = hashlib.sha256()
        for folder in folders:
            if not folder.is_dir():
                raise DataError(f"{folder} is not a folder; --data takes folders of photos")
            found = pictures_in(folder, deep=True, endings=endings)
            if not found:
                what = "cube" if cubes else "picture"
                raise DataError(f"{folder} holds no {what} ({', '.join(sorted(endings))})")
            for path in found:
                digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
            paths += found
        return cls(tuple(paths), digest.hexdigest())


def too_small(shortest: int, patch: int, scale: int, margin: int) -> str:
    """Return what is said of a photo's shortest side, and the largest patch that fits into it."""
    side = (patch + 2 * margin) * scale
    needed = f"too small for a patch of {side}x{side} (data.patch={patch}"
    needed += f" and a margin of {margin} on each side" if margin else ""
    needed += f", at scale {scale})" if scale > 1 else ")"
    largest = shortest // scale - 2 * margin
    return f"{needed}; the largest that fits is --set data.patch={largest}," if largest > 0 else f"{needed};"


def taught_rows(height: int, held_out: float) -> int:
    """Return how many of a photo's rows patches come from, from the top; the rest is held out."""
    return height - round(height * held_out)


class Patches(Dataset[Tensor]):
    """High-resolution patches `C×(p+2m)s×(p+2m)s` as uint8; m is a margin that degradations may spoil.

    Those of cubes are float32 instead, as the file has them over its largest value.

    Args:
        photos: where patches come from; each photo is as likely as any other.
        config: patch size, memory and what is held out.
        scale: s, high-resolution pixels for each low-resolution one.
        margin: m, low-resolution pixels on each side that `data.pairs` cuts off after degrading.
        channels: 3 gives gray photos as RGB, 1 colour photos as gray (MATLAB's `rgb2gray`, in 8 bits); of
            cubes, their bands.
        seed: of every choice.
        cubes: whether cubes are wanted, rather than photos.

    Raises:
        PictureError: a file is no picture.
        DataError: a photo is too small for a patch, or a cube is none that the model takes.
    """

    def __init__(
        self,
        photos: PhotoList,
        config: PatchesConfig,
        *,
        scale: int,
        margin: int,
        channels: int,
        seed: int,
        cubes: bool = False,
    ) -> None:
        self.photos = photos
        self.side = (config.patch + 2 * margin) * scale
        self.channels = channels
        self._cubes = cubes
        self._held_out = config.held_out
        self.seed = seed
        self._budget = int(config.memory_gib * 2**30)
        self._decoded: OrderedDict[Path, Tensor] = OrderedDict()
        self._held = 0
        self._refuse_smaller(config.patch, scale=scale, margin=margin)

    def __getstate__(self) -> dict[str, Any]:
        """Leave decoded photos out: shared memory, by which they would reach loader workers, is scarce."""
        return {**self.__dict__, "_decoded": OrderedDict(), "_held": 0}

    def __getitem__(self, index: int) -> Tensor:
        return self.located(index)[0]

    def located(self, index: int) -> tuple[Tensor, Place]:
        """Return a patch and where it lies."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        path = self.photos.paths[random.integers(len(self.photos.paths))]
        photo = self._photo(path)
        height, width = photo.shape[-2:]
        taught = (taught_rows(height, self._held_out), width)
        top, left = (int(random.integers(size - self.side + 1)) for size in taught)
        turns, mirrored = int(random.integers(4)), bool(random.integers(2))
        place = Place(path, (height, width), top, left, (self.side, self.side), turns, mirrored)
        return place.cut(photo), place

    def sizes(self) -> Iterator[tuple[Path, Size]]:
        """Yield each photo's file and size, upright, from its header; cubes are decoded for it.

        What is decoded is kept for the patches, as far as there is memory.

        Raises:
            RelumeError: a file is no picture, or no cube that the model takes.
        """
        for path in self.photos.paths:
            if path.suffix.lower() in CUBES:
                height, width = self._photo(path).shape[-2:]
                yield path, (height, width)
            else:
                yield path, read_size(path, cubes=True)

    def _refuse_smaller(self, patch: int, *, scale: int, margin: int) -> None:
        """Look at every photo's size, so that a training does not fail at its thousandth step.

        Raises:
            RelumeError: as `sizes`.
            DataError: a photo is smaller than a patch; the smallest and what would fit are named.
        """
        shortest, small = {}, {}
        held_out = self._held_out
        for path, (height, width) in self.sizes():
            rows = taught_rows(height, held_out)
            if min(rows, width) < self.side:
                shortest[path] = min(rows, width)
                small[path] = f"{width}x{height}"
                small[path] += f" ({width}x{rows} without the {held_out:.0%} held out)" if held_out else ""
        if small:
            smallest = min(small, key=lambda path: shortest[path])
            out = "it" if len(small) == 1 else f"it and {len(small) - 1} more"
            problem = too_small(shortest[smallest], patch, scale, margin)
            raise DataError(f"{smallest} is {small[smallest]}, {problem} or take {out} out")

    def _photo(self, path: Path) -> Tensor:
        """Return the decoded photo, C×H×W, from memory where it is still there."""
        if path in self._decoded:
            self._decoded.move_to_end(path)
            return self._decoded[path]
        photo = read(path, cubes=True)
        pixels = photo.pixels
        if photo.cube is None:
            if self._cubes:
                raise DataError(f"{path} is a photo, but the model takes cubes of {self.channels} bands")
            pixels = pixels.mul(255).round_().to(torch.uint8)
            if self.channels == 1 and photo.channels == 3:
                pixels = gray_levels_of(pixels)
            pixels = pixels.expand(self.channels, -1, -1)
        elif not self._cubes:
            raise DataError(f"{path} is a cube of {photo.channels} bands, but the model takes photos")
        elif photo.channels != self.channels:
            raise DataError(
                f"{path} is a cube of {photo.channels} bands, but the model takes {self.channels}; "
                f"train one of as many (--set network.bands={photo.channels})"
            )
        self._decoded[path] = pixels
        self._held += pixels.nbytes
        while self._held > self._budget and len(self._decoded) > 1:
            _, oldest = self._decoded.popitem(last=False)
            self._held -= oldest.nbytes
        return pixels


@dataclass(frozen=True)
class StepSampler:
    """Sample indices of each step, for the share of one process: step t holds indices tB … tB + B - 1.

    Attributes:
        first: first step, counted from 0.
        last: one past the last step.
        batch: B, samples of a step over all processes.
        rank: which process.
        world: how many processes; B must be a multiple of it.
    """

    first: int
    last: int
    batch: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch % self.world:
            raise DataError(f"a batch of {self.batch} cannot be shared evenly by {self.world} processes")

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch // self.world
        for step in range(self.first, self.last):
            start = step * self.batch + self.rank * share
            yield list(range(start, start + share))
