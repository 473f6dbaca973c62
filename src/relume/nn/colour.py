"""Colours that networks take for granted, and luma and chroma as MATLAB's `rgb2ycbcr` makes them.

Source: ITU-R BT.601; MATLAB documentation, `rgb2ycbcr`. Y spans 16 .. 235 of 255, Cb and Cr 16 .. 240 around
128. It is the Y that super-resolution papers measure on, and the one that networks of luma take.
Departs from MATLAB on bytes: MATLAB would round Y to `uint8` there. Python toolboxes (BasicSR), and
so nearly every table since 2018, keep the fraction, and so do we.

Shapes: ... any leading dimensions, H W picture.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, which many super-resolution networks subtract from their input."""

GRAY_WEIGHTS = (0.298936021293775, 0.587043074451121, 0.114020904255103)
"""Shares of red, green and blue in MATLAB's `rgb2gray`, the first row of the inverse of the NTSC matrix. Gray
spans the full range, unlike Y."""

_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
"""Levels of Y, Cb and Cr for each of red, green and blue, which span 0 .. 1."""
_BLACK = (16.0, 128.0, 128.0)
"""What black has of them."""
_SPAN = 219.0
"""Levels of Y from black to white."""


def rgb_to_y(rgb: Tensor, *, peak: float = 1.0) -> Tensor:
    """Luma of an RGB picture, in the same units as the picture.

    Args:
        rgb: ... × 3 × H × W, floats in 0 .. `peak`.
        peak: what white is in `rgb`: 1 or 255.

    Returns:
        ... × 1 × H × W, floats from 16/255 `peak` (black) to 235/255 `peak` (white).

    Raises:
        TypeError: the picture is not of a floating type.
        ValueError: there are not three channels.
    """
    _refuse_others(rgb, "rgb_to_y")
    red, green, blue = rgb.unsqueeze(-4).unbind(-3)
    # The coefficients are for RGB in 0 .. 1 and give 0 .. 255; `peak` sets both ends straight.
    of_red, of_green, of_blue = _YCBCR[0]
    return (of_red * red + of_green * green + of_blue * blue + _BLACK[0] * peak) / 255.0


def gray_levels_of(levels: Tensor) -> Tensor:
    """Return the gray levels that MATLAB's `rgb2gray` makes of `... 3 H W` in uint8, `... 1 H W` in uint8."""
    # As doubles, so that halves fall as in MATLAB.
    weights = torch.tensor(GRAY_WEIGHTS, dtype=torch.float64, device=levels.device)[:, None, None]
    return (levels.double() * weights).sum(-3, keepdim=True).add_(0.5).floor_().to(torch.uint8)


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """Luma and chroma of an RGB picture.

    Args:
        rgb: ... × 3 × H × W, floats in 0 .. 1.

    Returns:
        Likewise, Y, Cb and Cr in 0 .. 1: levels over 255. Y is `rgb_to_y`'s but for rounding.

    Raises:
        TypeError: the picture is not of a floating type.
        ValueError: there are not three channels.
    """
    _refuse_others(rgb, "rgb_to_ycbcr")
    return _mixed(rgb, *_to_ycbcr(rgb.dtype, rgb.device))


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """Undo `rgb_to_ycbcr`; what no RGB picture has comes out beyond 0 .. 1.

    Raises:
        TypeError: the picture is not of a floating type.
        ValueError: there are not three channels.
    """
    _refuse_others(ycbcr, "ycbcr_to_rgb")
    return _mixed(ycbcr, *_to_rgb(ycbcr.dtype, ycbcr.device))


def gray_to_y(gray: Tensor) -> Tensor:
    """Luma of gray pictures of any shape, in 0 .. 1: that of RGB pictures whose channels are all this one."""
    return (gray * _SPAN + _BLACK[0]) / 255.0


def y_to_gray(luma: Tensor) -> Tensor:
    """Undo `gray_to_y`."""
    return (luma * 255.0 - _BLACK[0]) / _SPAN


def _mixed(picture: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Mix the three channels of `... 3 H W`, and add to each."""
    return (matrix @ picture.flatten(-2)).unflatten(-1, picture.shape[-2:]).add_(shift)


@lru_cache(maxsize=8)
def _to_ycbcr(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the matrix and what is added, 3 × 1 × 1."""
    # What is made under inference_mode could not take part in a later backward pass.
    with torch.inference_mode(False):
        matrix = torch.tensor(_YCBCR, dtype=torch.float64) / 255
        black = torch.tensor(_BLACK, dtype=torch.float64)[:, None, None] / 255
        return matrix.to(device, dtype), black.to(device, dtype)


@lru_cache(maxsize=8)
def _to_rgb(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the matrix back and what is added, 3 × 1 × 1."""
    with torch.inference_mode(False):
        matrix, black = _to_ycbcr(torch.float64, torch.device("cpu"))
        back = torch.linalg.inv(matrix)
        return back.to(device, dtype), -(back @ black.flatten())[:, None, None].to(device, dtype)


def _refuse_others(picture: Tensor, name: str) -> None:
    if not picture.is_floating_point():
        raise TypeError(f"{name} takes floats, not {picture.dtype}")
    if picture.ndim < 3 or picture.shape[-3] != 3:
        raise ValueError(f"{name} takes ... × 3 × H × W, not {tuple(picture.shape)}")
