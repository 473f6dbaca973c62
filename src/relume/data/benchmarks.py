"""Benchmark sets: low and high resolution pairs from the folders that users have.

Layouts understood, for a folder DIR:

- pictures right in DIR: they are the high-resolution pictures of one set;
- `DIR/HR/`, and optionally `DIR/LR_bicubic/X{scale}/`: one set whose low pictures may be given (a low
  picture carries its high picture's name, with or without a suffix: `baby.png`, `babyx4.png`);
- folders of either kind in DIR: each is one set, called by its folder's name.

The high picture is cut to a multiple of the scale from the top left, as MATLAB's `modcrop` scripts do.
A low picture that is not given is made from it with MATLAB's bicubic on 8 bits; at scale 1, where it is
what a model repairs, it must be given. Or all of them are made by a degradation, each by a seed of its own;
what that makes near a border from the border alone is cut off both pictures.

Gray pictures (one of Set14 is) are replicated to three channels, as the loaders of BasicSR and its
heirs do, since most models want RGB. So a gray picture is measured as RGB; see `measures/protocols.py`.
Alpha is left out, and deeper pictures are rounded to 8 bits: that is what papers measure.

Cubes are found instead where they are asked for; all that is said of pictures holds, but their values stay
floats, over the largest of the high cube, and nothing is rounded. DIR may also be a single file.

Shapes: 3 channels or the bands of a cube, H W high resolution after the cut, h w = H/scale W/scale.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, overload

import torch
from torch import Tensor

from relume.core.checkpoints import file_sha256
from relume.core.contract import Contract
from relume.core.errors import DataError
from relume.core.pictures import CUBES, SUFFIXES, pictures_in, read
from relume.data.degradations.base import Degradation, Place, located
from relume.data.patches import taught_rows
from relume.nn.resize import enlarge_bicubic, imresize, imresize_uint8

_LAYOUTS = "pictures in it, HR/ with optional LR_bicubic/X{scale}/, or folders of these kinds"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """One picture of a benchmark, at both resolutions.

    Attributes:
        set_name: the benchmark set it belongs to.
        name: the high picture's file name without suffix.
        low: 3 × h × w, float32 in 0 .. 1, whole 8-bit levels; a cube's may pass 0 .. 1 a little.
        high: 3 × H × W, likewise, H = scale · h and W = scale · w.
        cube: whether it is one, with floats and any number of bands.
        low_source: `given` as a file, or `made` from the high picture.
        high_path: the high picture's file.
        low_path: the low picture's file where it was given.
        high_sha256: hash of the high picture's file.
        low_sha256: hash of the low picture's file where it was given.
    """

    set_name: str
    name: str
    low: Tensor
    high: Tensor
    low_source: Literal["given", "made"]
    high_path: Path
    low_path: Path | None
    high_sha256: str
    low_sha256: str | None
    cube: bool = False

    def bicubic(self) -> Tensor:
        """Return the low picture enlarged by MATLAB's bicubic, with 8 bits if the pair has: the baseline."""
        scale = self.high.shape[-1] // self.low.shape[-1]
        return enlarge_bicubic(self.low, scale=scale, rounded=not self.cube)

    def fitting(self, contract: Contract) -> Pair:
        """Return it as it is, if a model of this contract takes it.

        Raises:
            DataError: it is a cube and the model takes pictures or other bands, or the other way round.
        """
        bands, takes = self.high.shape[0], f"cubes of {contract.channels} bands"
        if self.cube and (bands != contract.channels or not contract.of_cubes):
            takes = takes if contract.of_cubes else "pictures"
            raise DataError(f"{self.high_path} is a cube of {bands} bands, but the model takes {takes}")
        if contract.of_cubes and not self.cube:
            raise DataError(f"{self.high_path} is a picture, but the model takes {takes}")
        return self

    def refuse_smaller(self, side: int, *, needed_by: str) -> None:
        """See whether both sides of the high picture have so many pixels.

        Raises:
            DataError: they do not.
        """
        height, width = self.high.shape[-2:]
        if min(height, width) < side:
            raise DataError(
                f"{self.high_path} is {width}×{height} pixels once it is cut to what can be compared; "
                f"{needed_by} needs {side} a side, so leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What makes low pictures from high ones.

    Attributes:
        function: the degradation, for the pairs' scale.
        seed: of a set's first picture; the next has the next number.
    """

    function: Degradation
    seed: int = 0

    def apply(self, high: Tensor, *, scale: int, place: Place) -> tuple[Tensor, Tensor]:
        """Return the low picture of `3 H W` in uint8 (a cube's floats), and what is left of the high one.

        Args:
            high: the high picture.
            scale: how many times larger it is than the low one.
            place: where it lies in its file.

        Raises:
            DataError: nothing is left, or what the degradation needs of the picture is missing.
        """
        margin = self.function.margin
        least = scale * (2 * margin + 1)
        if min(high.shape[-2:]) < least:
            raise DataError(
                f"{place.photo} is {high.shape[-1]}×{high.shape[-2]} pixels, but this degradation needs "
                f"{least}×{least} at ×{scale}; leave it out"
            )
        generator = torch.Generator().manual_seed(self.seed)
        (low,) = located(self.function, place)(_floats(high)[None], generator=generator)
        if high.dtype == torch.uint8:
            low = low.mul(255).round().to(torch.uint8)
        return _inside(low, margin), _inside(high, margin * scale)


@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """Where one pair lies: its set, its high picture, and its low picture where one is given.

    Attributes:
        damage: what makes the low picture where none is given; None: MATLAB's bicubic.
        held_out: share of the picture's rows, the lowest, that a training holds out and that alone count; 0
            for all rows.
    """

    set_name: str
    high_path: Path
    low_path: Path | None
    damage: Damage | None = None
    held_out: float = 0.0

    def load(self, *, scale: int) -> Pair:
        """Read both pictures, or read one and make the other.

        Raises:
            DataError: the high picture is smaller than the scale, or a given low picture does not fit it.
            PictureError: a file cannot be read.
        """
        whole, peak = _read_levels(self.high_path)
        full_height, full_width = whole.shape[-2:]
        top = taught_rows(full_height, self.held_out) if self.held_out else 0
        high = _crop(whole[:, top:], scale, self.high_path)
        height, width = (side // scale for side in high.shape[-2:])
        if self.damage is not None:
            part = (height * scale, width * scale)
            place = Place(self.high_path, (full_height, full_width), top, 0, part)
            low, high = self.damage.apply(high, scale=scale, place=place)
        elif self.low_path is None:
            shrink = imresize_uint8 if high.dtype == torch.uint8 else imresize
            low = shrink(high, height=height, width=width)
        else:
            low, own_peak = _read_levels(self.low_path)
            if self.held_out:
                low = low[:, taught_rows(low.shape[1], self.held_out) :]
            if peak != own_peak:
                low = low * (own_peak / peak)
            if low.shape[-2:] != (height, width):
                raise DataError(
                    f"{self.low_path} is {low.shape[-1]}×{low.shape[-2]} pixels, but {self.high_path.name} "
                    f"at ×{scale} needs {width}×{height}; mend the file or let low pictures be made"
                )
        return Pair(
            set_name=self.set_name,
            name=self.high_path.stem,
            low=_floats(low),
            high=_floats(high),
            low_source="made" if self.low_path is None else "given",
            high_path=self.high_path,
            low_path=self.low_path,
            high_sha256=file_sha256(self.high_path),
            low_sha256=None if self.low_path is None else file_sha256(self.low_path),
            cube=high.dtype != torch.uint8,
        )


class BenchmarkPairs(Sequence[Pair]):
    """The pairs found in a folder, set after set in the order of their names; read when asked for.

    Attributes:
        scale: how many times larger the high pictures are.
        files: where each pair lies, in order.
    """

    def __init__(self, files: Sequence[PairFiles], *, scale: int) -> None:
        self.files = tuple(files)
        self.scale = scale

    def told(self, condition: str) -> BenchmarkPairs:
        """Return the same pairs, their sets' names followed by what figures hold for, if anything."""
        if not condition:
            return self
        files = (replace(each, set_name=f"{each.set_name} ({condition})") for each in self.files)
        return BenchmarkPairs(tuple(files), scale=self.scale)

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> BenchmarkPairs: ...
    def __getitem__(self, index: int | slice) -> Pair | BenchmarkPairs:
        if isinstance(index, slice):
            return BenchmarkPairs(self.files[index], scale=self.scale)
        return self.files[index].load(scale=self.scale)

    def __iter__(self) -> Iterator[Pair]:
        return (files.load(scale=self.scale) for files in self.files)


def find_pairs(
    folder: Path,
    *,
    scale: int,
    always_make_low: bool = False,
    name: str | None = None,
    damage: Damage | None = None,
    cubes: bool = False,
    held_out: float = 0.0,
) -> BenchmarkPairs:
    """Find the benchmark sets of a folder; see the top of this file for the layouts understood.

    Only names are looked at here; pictures are read one by one as the result is walked.

    Args:
        folder: DIR, as the user gives it, or a file.
        scale: how many times larger the high pictures are, from 1.
        always_make_low: make every low picture, even where one is given.
        name: what to call the set, where the folder is one and is called otherwise.
        damage: makes every low picture, even where one is given; picture i of a set is drawn by `seed + i`.
        cubes: whether cubes are looked for, rather than pictures.
        held_out: as of `PairFiles`; every low picture is then made, but at scale 1.

    Returns:
        The pairs, in order; at least one.

    Raises:
        DataError: no folder, no pictures, a given low folder lacks a picture, or one name for several sets.
        ValueError: the scale is below 1.
    """
    if scale < 1:
        raise ValueError(f"scale must be 1 or more, not {scale}")
    if folder.is_file():
        if scale == 1 and damage is None:
            raise DataError(f"{folder} has no damaged picture beside it, which cannot be made at ×1")
        called = name or folder.stem
        single = PairFiles(set_name=called, high_path=folder, low_path=None, damage=damage, held_out=held_out)
        return BenchmarkPairs((single,), scale=scale)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one with {_LAYOUTS}")
    endings = CUBES if cubes else SUFFIXES
    inside = [folder] if _is_set(folder, endings) else sorted(folder.iterdir())
    sets = [inner for inner in inside if _is_set(inner, endings)]
    if name is not None and len(sets) > 1:
        raise DataError(
            f"{folder} holds {len(sets)} sets, which cannot all be called {name!r}; name one of them"
        )
    # resolve, so that "." and ".." have a name as well.
    files = [
        pair
        for inner in sets
        for pair in _set_files(
            inner,
            name or inner.resolve().name,
            scale,
            # A part of a given picture fits only where nothing was shrunk.
            always_make_low or (held_out > 0 and scale > 1),
            damage,
            endings,
        )
    ]
    if not files:
        what = f"cubes ({', '.join(sorted(endings))})" if cubes else "pictures"
        raise DataError(f"no {what} in {folder}; understood are: {_LAYOUTS}")
    if held_out:
        files = [replace(pair, held_out=held_out) for pair in files]
    return BenchmarkPairs(files, scale=scale)


def held_out_pairs(
    paths: Sequence[Path], *, scale: int, held_out: float, damage: Damage | None = None
) -> BenchmarkPairs:
    """Return what a training holds out of its pictures, each low picture made.

    Picture i of a folder is damaged by `seed + i`, as where `find_pairs` finds it.

    Args:
        paths: the pictures or cubes, those of each folder in the order of their names.
        scale: as of `find_pairs`.
        held_out: as of `PairFiles`.
        damage: as of `find_pairs`.
    """
    before: Counter[Path] = Counter()
    files = []
    for path in paths:
        own = _numbered(damage, before[path.parent])
        before[path.parent] += 1
        files.append(
            PairFiles(set_name="held out", high_path=path, low_path=None, damage=own, held_out=held_out)
        )
    return BenchmarkPairs(files, scale=scale)


def _numbered(damage: Damage | None, index: int) -> Damage | None:
    """Return the damage of a set's picture with this number."""
    return None if damage is None else replace(damage, seed=damage.seed + index)


def _is_set(folder: Path, endings: Collection[str]) -> bool:
    if not folder.is_dir() or folder.name.startswith("."):
        return False
    return bool(pictures_in(_high_folder(folder), endings=endings))


def _high_folder(folder: Path) -> Path:
    return folder / "HR" if (folder / "HR").is_dir() else folder


def _set_files(
    folder: Path,
    name: str,
    scale: int,
    always_make_low: bool,
    damage: Damage | None,
    endings: Collection[str],
) -> Iterator[PairFiles]:
    high_paths = pictures_in(_high_folder(folder), endings=endings)
    if damage is not None:
        for index, high_path in enumerate(high_paths):
            own = _numbered(damage, index)
            yield PairFiles(set_name=name, high_path=high_path, low_path=None, damage=own)
        return
    low_folder = folder / "LR_bicubic" / f"X{scale}"
    given = (folder / "HR").is_dir() and low_folder.is_dir() and not always_make_low
    low_paths = pictures_in(low_folder, endings=endings) if given else []
    if scale == 1 and not given:
        raise DataError(
            f"{folder} has no damaged pictures, which cannot be made at ×1; put them in {low_folder} by the "
            f"names of the sharp ones in {folder / 'HR'}"
        )
    for high_path in high_paths:
        low_path = _low_of(high_path, low_paths, scale)
        if given and low_path is None:
            raise DataError(
                f"{low_folder} has no picture for {high_path.name} (looked for {high_path.stem} and "
                f"{high_path.stem}x{scale}); add it or let low pictures be made"
            )
        yield PairFiles(set_name=name, high_path=high_path, low_path=low_path)


def _low_of(high_path: Path, low_paths: Sequence[Path], scale: int) -> Path | None:
    """The low picture of the same name, or of that name with a suffix such as `x4`, `_x4` or `_LRBI_x4`."""
    suffixed = re.compile(re.escape(high_path.stem) + rf"(_LR\w*)?[_-]?x{scale}", re.IGNORECASE)
    exact = [path for path in low_paths if path.stem == high_path.stem]
    return next(iter(exact + [path for path in low_paths if suffixed.fullmatch(path.stem)]), None)


def _read_levels(path: Path) -> tuple[Tensor, float]:
    """A picture file as 3 × H × W `uint8`, where gray is replicated, or a cube's floats; and its peak."""
    picture = read(path, cubes=True)
    if picture.cube is not None:
        return picture.pixels, picture.cube.peak
    levels = picture.pixels.clamp(0, 1).mul(255).round().to(torch.uint8)
    return levels.expand(3, -1, -1).contiguous(), 1.0


def _floats(values: Tensor) -> Tensor:
    return values.float() / 255 if values.dtype == torch.uint8 else values


def _inside(levels: Tensor, margin: int) -> Tensor:
    height, width = levels.shape[-2:]
    return levels[:, margin : height - margin, margin : width - margin]


def _crop(high: Tensor, scale: int, path: Path) -> Tensor:
    height, width = (side // scale * scale for side in high.shape[-2:])
    if not height or not width:
        raise DataError(
            f"{path} is {high.shape[-1]}×{high.shape[-2]} pixels, less than one pixel at ×{scale}"
        )
    return high[:, :height, :width]
