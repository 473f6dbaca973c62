"""BT.601 luma as MATLAB's `rgb2ycbcr` makes it: the Y that super-resolution papers measure on.

Source: ITU-R BT.601; MATLAB documentation, `rgb2ycbcr`. Y spans 16 .. 235 of 255.
Departs from MATLAB on bytes: MATLAB would round Y to `uint8` there. Python toolboxes (BasicSR), and
so nearly every table since 2018, keep the fraction, and so do we.
"""

from __future__ import annotations

from torch import Tensor

_RED, _GREEN, _BLUE, _BLACK = 65.481, 128.553, 24.966, 16.0


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
    if not rgb.is_floating_point():
        raise TypeError(f"rgb_to_y takes floats, not {rgb.dtype}")
    if rgb.ndim < 3 or rgb.shape[-3] != 3:
        raise ValueError(f"rgb_to_y takes ... × 3 × H × W, not {tuple(rgb.shape)}")
    red, green, blue = rgb.unsqueeze(-4).unbind(-3)
    # The coefficients are for RGB in 0 .. 1 and give 0 .. 255; `peak` sets both ends straight.
    return (_RED * red + _GREEN * green + _BLUE * blue + _BLACK * peak) / 255.0
