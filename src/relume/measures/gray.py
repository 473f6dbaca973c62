"""The gray picture that measures without a reference look at: MATLAB's `rgb2gray` of the 8-bit picture.

Source: MATLAB documentation, `rgb2gray`: 0.298936 R + 0.587043 G + 0.114021 B, the first row of the
inverse of the NTSC matrix, rounded to whole levels where the picture has whole levels. This is full
range, unlike the luma of `nn.colour`, on which super-resolution tables are measured.

Shapes: C channels (1 or 3), H W picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relume.core.errors import PictureError
from relume.nn.colour import GRAY_WEIGHTS

_PEAK = 255.0


def gray_levels(picture: Tensor) -> Tensor:
    """The gray levels of a picture, as MATLAB has them of the saved 8-bit picture.

    Args:
        picture: C × H × W in 0 .. 1, clamped and rounded to 8 bits first. One channel is taken as it is.

    Returns:
        H × W, float64, whole levels in 0 .. 255, on the CPU.

    Raises:
        ValueError: the shape is another.
    """
    if picture.ndim != 3 or picture.shape[0] not in (1, 3):
        raise ValueError(f"a picture is C × H × W with 1 or 3 channels, not {tuple(picture.shape)}")
    planes = picture.detach().cpu()
    if planes.shape[0] == 1:
        return _levels(planes[0])
    gray = torch.zeros(planes.shape[-2:], dtype=torch.float64)
    for plane, weight in zip(planes, GRAY_WEIGHTS, strict=True):
        gray.add_(_levels(plane), alpha=weight)
    return gray.add_(0.5).floor_()


def check_gray(gray: Tensor, *, least: int, measure: str) -> None:
    """Refuse what a measure cannot take.

    Args:
        gray: what is to be H × W.
        least: pixels that a side must have.
        measure: what to call it.

    Raises:
        PictureError: a side is shorter.
        ValueError: the picture is not H × W.
    """
    if gray.ndim != 2:
        raise ValueError(f"a gray picture is H × W, not {tuple(gray.shape)}")
    height, width = gray.shape
    if min(height, width) < least:
        raise PictureError(
            f"{measure} needs at least {least}x{least} pixels and this picture has {width}x{height}; "
            "take a larger one"
        )


def _levels(plane: Tensor) -> Tensor:
    return plane.to(torch.float64).clamp(0, 1).mul_(_PEAK).round_()
