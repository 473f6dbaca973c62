"""NIQE: how far a picture's statistics lie from those of good photos; no original is needed.

Mittal, Soundararajan and Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE SPL
20(3), 2013, eq. 1-10, and the value-changing details of the authors' MATLAB release:

1. Gray levels are whole (`gray.py`); rows and columns beyond whole blocks of 96 × 96 are cut.
2. Levels are freed of their local mean and contrast (eq. 1-3): a 7 × 7 Gaussian of sigma 7/6, the
   border repeated, and 1 added to the contrast so that flat areas stay calm.
3. Each block gives 18 features (eq. 4-8): an asymmetric generalised Gaussian fitted by moments to
   those values, and to their products with the neighbour in four directions, round the block's end.
   The shape is the nearest of 0.2, 0.201 … 10.
4. The same at half the size (MATLAB's bicubic of the gray levels, blocks of 48 × 48): 36 features.
5. The distance (eq. 10) is between the blocks' Gaussian and one fitted to good photos, under the
   pseudo-inverse of their mean covariance. A feature that a block does not have (no values of one
   sign) is left out of the means, and such a block out of the covariance.

The good photos are ours (`python -m relume.measures.niqe`), so values compare with published ones
only under the authors' parameters, which `load_natural_model` reads from their `modelparameters.mat`.

Departs from MATLAB: with one block, or one that has all features, the covariance is zero (MATLAB's
`nancov` takes one row for a series and gives a single number). Structure below 1e-8 levels is taken
as none, so that flat areas give the same value on every machine.

Shapes: H W picture in gray levels, N blocks, D = 36 features.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relume.core.checkpoints import Header, read_checkpoint, write_checkpoint
from relume.core.errors import CheckpointError, DataError, PictureError, RelumeError
from relume.core.matlab_file import read_arrays
from relume.core.pictures import pictures_in, read
from relume.measures.gray import check_gray, gray_levels
from relume.nn.resize import imresize

BLOCK = 96
"""Side of a block in pixels: the smallest side that can be measured."""

FEATURES = 36
"""Features of a block, 18 at each of two sizes."""

SHARPNESS = 0.75
"""Blocks of a good photo count from this share of its sharpest block's sharpness (section III-C)."""

MODEL_FILE = Path(__file__).with_name("niqe.safetensors")
"""The model that comes with the package."""

_WINDOW, _SIGMA = 7, 7 / 6
_CALM = 1.0
_NOTHING = 1e-8
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Pixels at work at once; more would only take memory. Blocks are independent, so values do not change.
_STRIP = 1 << 21


@dataclass(frozen=True, kw_only=True, eq=False)
class NaturalModel:
    """The Gaussian of good photos' features.

    Attributes:
        mean: D, float64.
        covariance: D × D, float64.

    Raises:
        ValueError: the shapes are others, or values are not finite.
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        shapes = (tuple(self.mean.shape), tuple(self.covariance.shape))
        if shapes != ((FEATURES,), (FEATURES, FEATURES)):
            raise ValueError(
                f"mean and covariance are {shapes}, not ({FEATURES},) and {(FEATURES, FEATURES)}"
            )
        if not (self.mean.isfinite().all() and self.covariance.isfinite().all()):
            raise ValueError("mean and covariance hold values that are not finite")


def niqe(gray: Tensor, model: NaturalModel | None = None) -> float:
    """The distance of a picture from good photos.

    Args:
        gray: H × W, whole levels in 0 .. 255, as of `gray_levels`. (Super-resolution tables give the
            luma of 16 .. 235 instead: `rgb_to_y(levels, peak=255)[0].round()`.)
        model: of good photos; None for the one that comes with the package.

    Returns:
        0 or more, lower is better; good photos have 2 to 5.

    Raises:
        PictureError: a side is shorter than a block, or the picture is flat.
    """
    model = model or default_model()
    features, _ = block_features(gray)
    mean, covariance = _gaussian(features)
    if not mean.isfinite().all():
        raise PictureError("NIQE needs some structure in the picture, and this one is flat in all its blocks")
    away = model.mean - mean
    distance = away @ _pseudo_inverse((model.covariance + covariance) / 2) @ away
    return float(distance.clamp_min(0).sqrt())


def block_features(gray: Tensor) -> tuple[Tensor, Tensor]:
    """Features and sharpness of each block, row by row of blocks.

    Args:
        gray: H × W, levels in 0 .. 255.

    Returns:
        N × D float64, not a number where a block lacks the feature, and N float64: the mean of the
        local contrast (eq. 11).

    Raises:
        PictureError: a side is shorter than a block.
        ValueError: the picture is not H × W.
    """
    check_gray(gray, least=BLOCK, measure="NIQE")
    height, width = gray.shape
    gray = gray[: height // BLOCK * BLOCK, : width // BLOCK * BLOCK].to(torch.float64)
    half = imresize(gray, height=gray.shape[0] // 2, width=gray.shape[1] // 2)
    full_features, sharpness = _features_at(gray, BLOCK)
    half_features, _ = _features_at(half, BLOCK // 2)
    return torch.cat([full_features, half_features], dim=1), sharpness


def fit(photos: Iterable[Tensor]) -> tuple[NaturalModel, int]:
    """Fit the Gaussian of good photos, from their sharp blocks.

    Args:
        photos: gray levels H × W of each; each picked by its own sharpest block.

    Returns:
        The model, and how many blocks it comes from.

    Raises:
        PictureError: a photo is smaller than a block.
        DataError: there are too few blocks with all features for the covariance to have full rank.
    """
    chosen = []
    for gray in photos:
        features, sharpness = block_features(gray)
        chosen.append(features[sharpness > SHARPNESS * sharpness.max()])
    features = torch.cat(chosen) if chosen else torch.empty(0, FEATURES, dtype=torch.float64)
    whole = int(features.isfinite().all(dim=1).sum())
    if whole <= FEATURES:
        raise DataError(
            f"only {whole} blocks are sharp enough, and {FEATURES + 1} is the least; "
            "give more or larger photos"
        )
    mean, covariance = _gaussian(features)
    return NaturalModel(mean=mean, covariance=covariance), len(features)


def load_natural_model(path: Path) -> NaturalModel:
    """Read a model: one of ours (.safetensors), or the authors' parameters (.mat).

    Raises:
        CheckpointError: the file is missing, damaged or holds something else.
    """
    if path.suffix.lower() == ".mat":
        arrays = read_arrays(path)
        mean, covariance = arrays.get("mu_prisparam"), arrays.get("cov_prisparam")
    else:
        header, state = read_checkpoint(path)
        if header.model != "niqe":
            raise CheckpointError(
                f"{path} holds the model {header.model}, not NIQE's; fit one or leave it out"
            )
        mean, covariance = state.get("mean"), state.get("covariance")
    if mean is None or covariance is None:
        raise CheckpointError(
            f"{path} holds no NIQE model; it needs mu_prisparam and cov_prisparam, or comes from "
            "python -m relume.measures.niqe"
        )
    try:
        return NaturalModel(mean=mean.to(torch.float64).flatten(), covariance=covariance.to(torch.float64))
    except ValueError as error:
        raise CheckpointError(f"{path} holds no NIQE model that can be used: {error}") from error


@lru_cache(maxsize=1)
def default_model() -> NaturalModel:
    """The model that comes with the package.

    Raises:
        CheckpointError: its file is damaged.
    """
    return load_natural_model(MODEL_FILE)


def _features_at(levels: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """N × 18 features and N sharpnesses of one size of the picture, whose sides are whole blocks."""
    height, width = levels.shape
    rows = max(1, _STRIP // (width * block)) * block
    features, sharpness = [], []
    for top in range(0, height, rows):
        structure, contrast = _normalised(levels, top, min(top + rows, height))
        blocks = _blocks(structure, block)
        features.append(_block_statistics(blocks))
        sharpness.append(_blocks(contrast, block).mean(dim=(1, 2)))
    return torch.cat(features), torch.cat(sharpness)


def _normalised(levels: Tensor, top: int, bottom: int) -> tuple[Tensor, Tensor]:
    """Rows freed of their local mean and contrast, and that contrast (eq. 1-3)."""
    reach = _WINDOW // 2
    height, width = levels.shape
    rows = torch.arange(top - reach, bottom + reach).clamp_(0, height - 1)
    columns = torch.arange(-reach, width + reach).clamp_(0, width - 1)
    padded = levels[rows][:, columns]
    mean = _weighed(padded)
    contrast = (_weighed(padded * padded) - mean * mean).abs_().sqrt_()
    structure = levels[top:bottom] - mean
    structure[structure.abs() < _NOTHING] = 0
    return structure.div_(contrast + _CALM), contrast


def _weighed(x: Tensor) -> Tensor:
    """Weigh by the Gaussian window where it fits: h × w to h-6 × w-6."""
    position = torch.arange(_WINDOW, dtype=x.dtype) - _WINDOW // 2
    window = torch.exp(-position.square() / (2 * _SIGMA**2))
    window /= window.sum()
    for dim in (0, 1):
        length = x.shape[dim] - _WINDOW + 1
        total = window[0] * x.narrow(dim, 0, length)
        for shift in range(1, _WINDOW):
            total.add_(x.narrow(dim, shift, length), alpha=window[shift].item())
        x = total
    return x


def _blocks(plane: Tensor, side: int) -> Tensor:
    """H × w to N × side × side."""
    height, width = plane.shape
    parts = plane.reshape(height // side, side, width // side, side)
    return parts.transpose(1, 2).reshape(-1, side, side)


def _block_statistics(blocks: Tensor) -> Tensor:
    """The 18 features of each block at one size: N × b × b to N × 18."""
    shape, left, right = _fit_asymmetric(blocks)
    features = [shape, (left + right) / 2]
    for neighbour in _NEIGHBOURS:
        shape, left, right = _fit_asymmetric(blocks * blocks.roll(neighbour, dims=(1, 2)))
        mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))  # eq. 8
        features += [shape, mean, left, right]
    return torch.stack(features, dim=1)


def _fit_asymmetric(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit an asymmetric generalised Gaussian by moments (eq. 4-7): shape, left and right scale, each N."""
    values = blocks.flatten(1)
    negative, positive = values.clamp(max=0), values.clamp(min=0)
    left_power, right_power = negative.square().sum(1), positive.square().sum(1)
    left = (left_power / (values < 0).sum(1)).sqrt()  # nothing over nothing where a side has no values
    right = (right_power / (values > 0).sum(1)).sqrt()
    count = values.shape[1]
    ratio = left / right
    spread = (values.abs().sum(1) / count).square() / ((left_power + right_power) / count)
    spread = spread * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = _nearest_shape(spread)
    scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, left * scale, right * scale


def _nearest_shape(spread: Tensor) -> Tensor:
    """The shape whose spread is nearest; the first where it is not a number, as MATLAB's `min`."""
    shapes, spreads = _shape_grid()
    above = torch.searchsorted(spreads, spread).clamp_(1, len(spreads) - 1)
    below = above - 1
    nearest = torch.where(spread - spreads[below] <= spreads[above] - spread, below, above)
    return shapes[torch.where(spread.isnan(), 0, nearest)]


@lru_cache(maxsize=1)
def _shape_grid() -> tuple[Tensor, Tensor]:
    """The shapes 0.2, 0.201 … 10 and their spread (mean |x|)² / mean x², which grows with the shape."""
    shapes = 0.2 + 0.001 * torch.arange(9801, dtype=torch.float64)
    spreads = torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))
    return shapes, spreads


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each feature where it is there, and covariance of the blocks that have all."""
    mean = features.nanmean(dim=0)
    away = features[features.isfinite().all(dim=1)]
    if len(away) < 2:
        return mean, torch.zeros(FEATURES, FEATURES, dtype=torch.float64)
    away = away - away.mean(dim=0)
    return mean, away.T @ away / (len(away) - 1)


def _pseudo_inverse(matrix: Tensor) -> Tensor:
    """MATLAB's `pinv`: singular values below D times the spacing of floats at the largest are none."""
    largest = float(torch.linalg.matrix_norm(matrix, ord=2))
    return torch.linalg.pinv(matrix, atol=FEATURES * float(np.spacing(largest)), rtol=0.0)


def _grays(files: Sequence[Path]) -> Iterator[Tensor]:
    for number, path in enumerate(files, start=1):
        if sys.stderr.isatty():
            print(f"\r{number} of {len(files)}", end="", file=sys.stderr, flush=True)
        yield gray_levels(read(path).pixels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit a model to folders of good photos: `python -m relume.measures.niqe FOLDER … -o FILE`."""
    parser = argparse.ArgumentParser(
        prog="python -m relume.measures.niqe", description="Fit NIQE's model of good photos."
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="Photos, at any depth.")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="A .safetensors file."
    )
    parser.add_argument("--note", default="", help="What the photos are, kept in the file.")
    given = parser.parse_args(arguments)
    try:
        files = [path for folder in given.folders for path in _photos(folder)]
        model, blocks = fit(_grays(files))
        trained: dict[str, Any] = {
            "photos": len(files), "blocks": blocks, "note": given.note,
            "command": f"python -m relume.measures.niqe {' '.join(folder.name for folder in given.folders)}",
        }  # fmt: skip
        header = Header(
            model="niqe", variant=None, config={"block": BLOCK, "sharpness": SHARPNESS}, trained=trained
        )
        write_checkpoint(given.output, {"mean": model.mean, "covariance": model.covariance}, header)
    except RelumeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {given.output}, from {blocks} blocks of {len(files)} photos")
    return 0


def _photos(folder: Path) -> list[Path]:
    """The pictures of a folder.

    Raises:
        DataError: there is no such folder, or it has none.
    """
    found = pictures_in(folder, deep=True) if folder.is_dir() else []
    if not found:
        raise DataError(f"{folder} is no folder with photos; name one")
    return found


if __name__ == "__main__":
    sys.exit(main())
