"""Resizing by the conventions of OpenCV, and MATLAB's with a factor in place of a size.

Source: OpenCV documentation, `cv::resize` and `InterpolationFlags`, and what its version 4 computes on
floats. An output pixel j of m, from n, looks at (j + 1/2) n/m - 1/2 ("bilinear", "bicubic" with
a = -3/4: no kernel widens when shrinking, so both alias) or at floor(j n/m) ("nearest"). "area" averages
the box of input pixels that an output pixel covers; where a side grows, it blends only the two input
pixels that an output pixel straddles. Pixels outside repeat the border.

Every mode is separable and linear: matrices along each side.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relume.nn.resize import side_taps

Mode = Literal["nearest", "bilinear", "bicubic", "area"]
_Matrix = npt.NDArray[np.float64]
_BLOCK = 64


def resize(pictures: Tensor, *, height: int, width: int, mode: Mode) -> Tensor:
    """Resize as OpenCV does; differentiable, and nothing is clamped: bicubic overshoots.

    Args:
        pictures: ... `H W`, float.
        height: rows of the output.
        width: columns of the output.
        mode: the interpolation.

    Returns:
        ... `height width`, of the same type and on the same device.

    Raises:
        ValueError: a side of input or output is empty.
    """
    rows, columns = pictures.shape[-2:]
    if min(rows, columns, height, width) < 1:
        raise ValueError(f"cannot resize {rows}×{columns} to {height}×{width}: a side is empty")
    # OpenCV averages boxes only where no side grows.
    boxes = height <= rows and width <= columns
    return _both(pictures, _side(rows, height, mode, boxes), _side(columns, width, mode, boxes))


def imresize(pictures: Tensor, factor: float) -> Tensor:
    """Resize as MATLAB's `imresize(image, factor)` (bicubic, antialiasing) does; a side n becomes ⌈n factor⌉.

    `relume.nn.resize.imresize` takes a size instead; the two agree where n factor is whole.

    Args:
        pictures: ... `H W`, float.
        factor: output pixels for each input pixel.
    """
    rows, columns = pictures.shape[-2:]
    return _both(pictures, _matlab(rows, factor), _matlab(columns, factor))


class _Block(NamedTuple):
    """A run of outputs along one side, as a matrix over the run of inputs that they read."""

    start: int
    length: int
    weights: Tensor  # outputs × length


_Side = tuple[_Block, ...]


def _both(pictures: Tensor, down: _Side, across: _Side) -> Tensor:
    """Resize both sides; a dimension goes block by block, as a long side's whole matrix is mostly zeros."""
    pictures = torch.cat(
        [each.weights.to(pictures) @ pictures.narrow(-2, each.start, each.length) for each in down], -2
    )
    return torch.cat(
        [pictures.narrow(-1, each.start, each.length) @ each.weights.to(pictures).T for each in across], -1
    )


def _blocks(weights: _Matrix) -> _Side:
    """Cut the matrix of a side, `m n`, into blocks."""
    found = []
    # Weights made under inference_mode could not take part in a later backward pass.
    with torch.inference_mode(False):
        for first in range(0, len(weights), _BLOCK):
            rows = weights[first : first + _BLOCK]
            read = np.flatnonzero(rows.any(0))
            start, stop = int(read[0]), int(read[-1]) + 1
            found.append(_Block(start, stop - start, torch.from_numpy(rows[:, start:stop])))
    return tuple(found)


@lru_cache(maxsize=256)
def _side(n: int, m: int, mode: Mode, boxes: bool) -> _Side:
    """Return the weights of one side of OpenCV's."""
    step = n / m
    if mode == "area" and boxes:
        weights = _boxes(n, m)
    elif mode == "nearest":
        weights = _gathered(n, np.floor(np.arange(m) * step)[:, None], np.ones((m, 1)))
    else:
        weights = _interpolated(n, m, mode)
    return _blocks(weights)


@lru_cache(maxsize=256)
def _matlab(n: int, factor: float) -> _Side:
    indices, weights = side_taps(n, math.ceil(n * factor), antialias=True, scale=factor)
    return _blocks(_gathered(n, indices, weights))


def _boxes(n: int, m: int) -> _Matrix:
    step = n / m
    first = np.arange(m)[:, None] * step
    pixel = np.arange(n)
    overlap = np.minimum(first + step, pixel + 1) - np.maximum(first, pixel)
    # OpenCV leaves out a sliver of a pixel, and divides by the whole box all the same.
    return np.where(overlap > 1e-3, overlap, 0.0) / step


def _interpolated(n: int, m: int, mode: Mode) -> _Matrix:
    step = n / m
    place = (np.arange(m) + 0.5) * step - 0.5
    if mode == "area":
        pixel = np.floor(np.arange(m) * step)
        beyond = (np.arange(m) + 1) - (pixel + 1) / step
        share = np.where(beyond <= 0, 0.0, beyond - np.floor(beyond))
    else:
        pixel = np.floor(place)
        share = place - pixel
    if mode == "bicubic":
        taps = np.arange(-1, 3)
        return _gathered(n, pixel[:, None] + taps, _cubic(np.abs(share[:, None] - taps)))
    return _gathered(n, pixel[:, None] + np.arange(2), np.stack([1 - share, share], 1))


def _cubic(x: _Matrix) -> _Matrix:
    """Keys' kernel with OpenCV's a = -3/4, for distances below 2."""
    a = -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, far)


def _gathered(n: int, indices: npt.NDArray[np.generic], weights: _Matrix) -> _Matrix:
    """Return the matrix whose row j has `weights[j]` in the columns `indices[j]`, clamped to the side."""
    matrix = np.zeros((len(indices), n))
    columns = np.clip(indices.astype(np.int64), 0, n - 1)
    np.add.at(matrix, (np.arange(len(indices))[:, None], columns), weights)
    return matrix
