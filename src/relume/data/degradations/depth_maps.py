"""How far what a photo shows is away, from files: depth maps that were measured or estimated.

A map carries its photo's name and size: a gray picture of 8 or 16 bits, `.npy` or `.mat`, `H W`; the larger a
number, the farther away. Distances are told as shares: of the map's largest number, or of one that is given,
so whatever unit a map is in is left behind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor

from relume.core.errors import DataError
from relume.core.pictures import SUFFIXES, read, read_size
from relume.data.degradations import matrices
from relume.data.degradations.base import Place, SameSizeConfig, Size

_NAMES = ("depth", "depths", "depth_map", "depthmap", "dep", "distance", "distances", "d")
_KEPT = 1 << 30
"""Bytes of maps that each process keeps in memory."""


class DistantConfig(SameSizeConfig):
    """Settings of damages that grow with the distance.

    Attributes:
        depth_maps: a folder of maps, each found by its photo's name without the ending (`a/b.png` for
            `a/b.jpg`, else `b.png`), or the map of a single photo; None invents the distances.
        farthest: the number in the maps that stands for a distance of 1; None: each map's largest.
    """

    depth_maps: Path | None = None
    farthest: PositiveFloat | None = None

    def maps(self) -> DepthMaps | None:
        """Return the maps, None where there are none.

        Raises:
            DataError: there are none where they should be, or two of one name.
        """
        return None if self.depth_maps is None else DepthMaps(self.depth_maps, farthest=self.farthest)


class Distant(ABC):
    """A damage that grows with the distance; `margin` is 0.

    Args:
        maps: distances of photos, None to invent them.
    """

    margin = 0

    def __init__(self, maps: DepthMaps | None) -> None:
        self.maps = maps

    @abstractmethod
    def __call__(self, high: Tensor, *, generator: torch.Generator, distance: Tensor | None = None) -> Tensor:
        """Map `B C H W` to the same, damaged; `distance` is `B 1 H W`, the farthest about 1."""

    def check(self, sizes: Callable[[], Iterable[tuple[Path, Size]]]) -> None:
        """See whether there is a map of each photo (`base.Located`)."""
        if self.maps is not None:
            self.maps.check(sizes())

    def at(self, place: Place) -> Distant | _At:
        """Return the same for pictures of a place (`base.Located`)."""
        return self if self.maps is None else _At(self, self.maps, place)


class _At:
    """A damage by the distances of one place of a photo."""

    margin = 0

    def __init__(self, damage: Distant, maps: DepthMaps, place: Place) -> None:
        self._damage, self._maps, self._place = damage, maps, place

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        distance = self._maps.at(self._place).to(high.device)
        return self._damage(high, generator=generator, distance=distance.expand(len(high), -1, -1, -1))


class DepthMaps:
    """Maps that are found by their photos' names.

    Args:
        place: a folder, searched to any depth, or the map of a single photo.
        farthest: the number that stands for a distance of 1; None: each map's largest.

    Raises:
        DataError: there is none, or two are of one name.
    """

    def __init__(self, place: Path, *, farthest: float | None = None) -> None:
        self.place = place
        self._farthest = farthest
        self._files = _by_name(place) if place.is_dir() else {}
        if not self._files and (place.is_dir() or not _is_map(place)):
            raise DataError(
                f"{place} holds no depth map ({', '.join(sorted({*matrices.SUFFIXES, *SUFFIXES}))}); "
                "check depth_maps"
            )
        self._decoded: OrderedDict[Path, Tensor] = OrderedDict()
        self._held = 0

    def file(self, photo: Path) -> Path:
        """Return the map's file of a photo.

        Raises:
            DataError: there is none.
        """
        if not self._files:
            return self.place
        parts = photo.with_suffix("").parts
        keys = ("/".join(parts[first:]) for first in range(len(parts)))
        found = next((self._files[key] for key in keys if key in self._files), None)
        if found is None:
            raise DataError(
                f"{self.place} holds no depth map of {photo}; add one as {photo.stem}.png, .npy or .mat, "
                "or take the photo out"
            )
        return found

    def check(self, sizes: Iterable[tuple[Path, Size]]) -> None:
        """See whether there is a map of each photo, by the files' headers where those tell the size.

        Args:
            sizes: the photos' files and sizes, upright.

        Raises:
            DataError: a map is missing, cannot be used, has another size, or would serve two photos.
        """
        taken: dict[Path, Path] = {}
        for photo, size in sizes:
            file = self.file(photo)
            if taken.setdefault(file, photo) != photo:
                raise DataError(
                    f"{file} would be the depth map of {taken[file]} and of {photo}; put maps into folders "
                    "called as those of the photos"
                )
            found = read_size(file) if file.suffix.lower() in SUFFIXES else _shape(file)
            if found != size:
                raise _other_size(file, found, photo, size)

    def at(self, place: Place) -> Tensor:
        """Return the distances of a part of a photo, `1 h w` of float32, the farthest about 1.

        Raises:
            DataError: the map is missing, cannot be used, or has another size.
        """
        file = self.file(place.photo)
        distances = self._distances(file)
        height, width = distances.shape[1:]
        if (height, width) != place.size:
            raise _other_size(file, (height, width), place.photo, place.size)
        return place.cut(distances)

    def _distances(self, file: Path) -> Tensor:
        """Return a whole map, from memory where it is still there."""
        if file in self._decoded:
            self._decoded.move_to_end(file)
            return self._decoded[file]
        values = _values(file)
        largest = values.max()
        if not values.isfinite().all() or values.min() < 0 or largest <= 0:
            raise DataError(
                f"{file} holds numbers that are no distances ({values.min():g} to {largest:g}); they must be "
                "finite, not negative, and not all zero: fill what was not measured"
            )
        distances = (values / (self._farthest or largest)).float().unsqueeze(0)
        self._decoded[file] = distances
        self._held += distances.nbytes
        while self._held > _KEPT and len(self._decoded) > 1:
            _, oldest = self._decoded.popitem(last=False)
            self._held -= oldest.nbytes
        return distances


def _is_map(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in (*matrices.SUFFIXES, *SUFFIXES)


def _by_name(folder: Path) -> dict[str, Path]:
    """Return a folder's maps by their paths below it, with "/" and without endings.

    Raises:
        DataError: two have one name.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if not _is_map(file) or any(part.startswith(".") for part in inside.parts):
            continue
        name = inside.with_suffix("").as_posix()
        if found.setdefault(name, file) != file:
            raise DataError(f"{found[name]} and {file} are depth maps of one name; keep one of them")
    return found


def _other_size(file: Path, found: Size, photo: Path, size: Size) -> DataError:
    return DataError(
        f"{file} is {found[1]}x{found[0]}, but its photo {photo} is {size[1]}x{size[0]}; "
        "a depth map has its photo's size, so resize it"
    )


def _values(file: Path) -> Tensor:
    """Read a map, `H W` of float64, in its own unit: levels, where it is a picture."""
    if file.suffix.lower() in SUFFIXES:
        picture = read(file)
        if not torch.equal(picture.pixels, picture.pixels[:1].expand_as(picture.pixels)):
            raise DataError(f"{file} is a picture in colour; distances are gray, so save the map itself")
        return picture.pixels[0].double() * (2**picture.bits - 1)
    return _matrix(matrices.read_matrices(file, what="depth map", names=_NAMES), file)


def _matrix(found: list[Tensor], file: Path) -> Tensor:
    squeezed = [values.squeeze() for values in found]
    if len(squeezed) != 1 or squeezed[0].ndim != 2:
        shapes = ", ".join("x".join(map(str, values.shape)) for values in found)
        raise DataError(f"{file} holds {shapes}; a depth map is one matrix, its photo's height by its width")
    return squeezed[0]


def _shape(file: Path) -> Size:
    """Return the height and width of a matrix; a `.npy` tells them before its numbers are read."""
    if file.suffix.lower() == ".npy":
        try:
            shape = np.load(file, mmap_mode="r", allow_pickle=False).shape
        except (OSError, ValueError, TypeError, EOFError):
            shape = ()  # reading it tells what is wrong
        sides = [side for side in shape if side > 1]
        if len(sides) == 2:
            return sides[0], sides[1]
    height, width = _values(file).shape
    return height, width
