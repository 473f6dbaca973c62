"""MATLAB's bicubic `imresize`, number for number: the ruler of super-resolution papers.

Source: MATLAB documentation, `imresize` (method "bicubic", "Antialiasing" on), and the kernel of
Keys, "Cubic Convolution Interpolation for Digital Image Processing", IEEE TASSP 29(6), 1981,
eq. 15 (a = -1/2). What MATLAB does, along one side of n pixels that becomes m:

1. With a size asked for, the scale is s = m / n for each side; with a scale asked for, m = ceil(s n)
   and s stays as given. The two agree wherever s n is whole, so crop to a multiple of the scale
   first, as the field does.
2. Output pixel j (from 0) sits at u = (j + 1/2) / s - 1/2 in the input.
3. Input pixel i weighs k(u - i); when shrinking, s k(s (u - i)), which widens the kernel by 1 / s
   and so removes what the small picture cannot hold (no aliasing). Weights are then divided by
   their sum.
4. Indices beyond the border are mirrored, the border pixel itself repeated: 1 0 | 0 1 2 ... .
5. The side with the smaller scale goes first; rows (the height) go first when both are equal.
6. Each pass returns the type it was given. So `uint8` is rounded (half up) and clamped twice:
   between the passes and at the end.

Shapes: ... any leading dimensions, H W input, h w output, n m one side of input and output.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Outputs that share one dense matrix. A picture's whole matrix is nearly all zeros once the picture
# is wide, so long sides are cut into blocks; a block is still big enough for BLAS to run at speed.
_BLOCK = 64


class Block(NamedTuple):
    """A run of outputs along one side, as a matrix over the run of inputs that they read."""

    start: int
    length: int
    weights: Tensor  # outputs × length


def keys_cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -1/2 (Keys 1981, eq. 15).

    Args:
        x: distances in pixels, any shape.

    Returns:
        The kernel's value at each distance; zero from 2 pixels on.
    """
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def imresize(image: Tensor, *, height: int, width: int, antialias: bool = True) -> Tensor:
    """Resize a float picture as MATLAB's `imresize(image, [height width])`; differentiable.

    Nothing is clamped: bicubic overshoots next to edges, as MATLAB's does on floats.

    Args:
        image: ... × H × W, any floating type and any value range.
        height: h, rows of the output.
        width: w, columns of the output.
        antialias: widen the kernel when shrinking (MATLAB's default).

    Returns:
        ... × h × w of the same type, on the same device. Computed in that type.

    Raises:
        TypeError: the picture is not of a floating type.
        ValueError: a side of input or output is empty, or there are fewer than two dimensions.
    """
    if not image.is_floating_point():
        raise TypeError(f"imresize takes floats, not {image.dtype}; imresize_uint8 takes bytes")
    for dim, length in _passes(image, height, width):
        image = _resize_side(image, dim, length, antialias)
    return image


def imresize_uint8(image: Tensor, *, height: int, width: int) -> Tensor:
    """Resize an 8-bit picture as MATLAB's `imresize` does, with its rounding between the passes.

    This makes the low-resolution pictures that papers train and test on.

    Args:
        image: ... × H × W of `uint8`.
        height: h, rows of the output.
        width: w, columns of the output.

    Returns:
        ... × h × w of `uint8`, on the same device. Computed in float64.

    Raises:
        TypeError: the picture is not `uint8`.
        ValueError: a side of input or output is empty, or there are fewer than two dimensions.
    """
    if image.dtype != torch.uint8:
        raise TypeError(f"imresize_uint8 takes uint8, not {image.dtype}; imresize takes floats")
    passes = _passes(image, height, width)
    if not passes:
        return image.clone()
    values = image.to(torch.float64)
    for dim, length in passes:
        # Half up, as MATLAB; torch.round would go to the even neighbour.
        values = _resize_side(values, dim, length, antialias=True).add_(0.5).floor_().clamp_(0, 255)
    return values.to(torch.uint8)


def enlarge_bicubic(low: Tensor, *, scale: int, rounded: bool = True) -> Tensor:
    """MATLAB's bicubic enlargement of an 8-bit picture: the baseline of every table.

    Args:
        low: ... × h × w, floats in 0 .. 1, rounded to 8 bits first.
        scale: how many times larger the output is.
        rounded: whether anything is rounded; floats are not.

    Returns:
        ... × scale·h × scale·w, float32 in 0 .. 1, whole 8-bit levels or floats.
    """
    height, width = (scale * side for side in low.shape[-2:])
    if not rounded:
        return imresize(low, height=height, width=width).clamp_(0, 1)
    levels = low.clamp(0, 1).mul(255).round().to(torch.uint8)
    return imresize_uint8(levels, height=height, width=width).float() / 255


def _passes(image: Tensor, height: int, width: int) -> list[tuple[int, int]]:
    """Which dimension goes to which length, in MATLAB's order; sides that keep their length need none."""
    if image.ndim < 2:
        raise ValueError(f"a picture has at least two dimensions, this one is {tuple(image.shape)}")
    rows, columns = image.shape[-2:]
    if min(rows, columns, height, width) < 1:
        raise ValueError(f"cannot resize {rows}×{columns} to {height}×{width}: a side is empty")
    sides = [(Fraction(height, rows), -2, height), (Fraction(width, columns), -1, width)]
    sides.sort(key=lambda side: side[0])  # stable: rows stay first when the scales are equal
    return [(dim, length) for scale, dim, length in sides if scale != 1]


def _resize_side(image: Tensor, dim: int, length: int, antialias: bool) -> Tensor:
    """One pass: dimension `dim` (-1 or -2) of `image` to `length`, in the picture's own type."""
    parts = []
    for block in side_blocks(
        image.shape[dim], length, antialias=antialias, dtype=image.dtype, device=image.device
    ):
        part = image.narrow(dim, block.start, block.length)
        parts.append(block.weights @ part if dim == -2 else part @ block.weights.T)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


@lru_cache(maxsize=256)
def side_blocks(
    n: int, m: int, *, antialias: bool, dtype: torch.dtype, device: torch.device, size: int = _BLOCK
) -> tuple[Block, ...]:
    """Return the weights of one side from `n` pixels to `m`, as dense matrices along the band.

    Args:
        n: length of the input.
        m: length of the output.
        antialias: widen the kernel when shrinking.
        dtype: of the weights.
        device: where they are to be.
        size: outputs in each block but the last.
    """
    indices, weights = side_taps(n, m, antialias)
    blocks = []
    # Weights made under inference_mode could not take part in a later backward pass.
    with torch.inference_mode(False):
        for first in range(0, m, size):
            index = indices[first : first + size]
            start, stop = int(index.min()), int(index.max()) + 1
            matrix = np.zeros((len(index), stop - start))
            # add.at, as a mirrored index may stand twice in one row.
            np.add.at(matrix, (np.arange(len(index))[:, None], index - start), weights[first : first + size])
            blocks.append(Block(start, stop - start, torch.from_numpy(matrix).to(device, dtype)))
    return tuple(blocks)


def side_taps(
    n: int, m: int, antialias: bool, scale: float | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return which inputs each output of a side reads and their weights, both m × taps.

    Some weights are zero, and next to a border the same input may stand twice. The scale is m / n
    unless given.
    """
    scale = m / n if scale is None else scale
    stretch = min(scale, 1.0) if antialias else 1.0
    support = 4.0 / stretch
    centre = (np.arange(m) + 0.5) / scale - 0.5
    # One tap more than the support can touch at either end; it weighs nothing.
    taps = math.ceil(support) + 2
    index = np.floor(centre - support / 2).astype(np.int64)[:, None] + np.arange(taps)
    weights = stretch * keys_cubic(stretch * (centre[:, None] - index))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(n), np.arange(n)[::-1]])[index % (2 * n)]
    return mirrored, weights
