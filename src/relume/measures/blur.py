"""How blurred a picture is, by how little a further blur changes it; no original is needed.

Crete, Dolmiere, Ladret and Nicolas, "The Blur Effect: Perception and Estimation with a New
No-Reference Perceptual Blur Metric", SPIE 6492, 2007, eq. 1-5: differences between neighbours are
taken of the picture and of a copy blurred by the mean of nine pixels along one direction. What the
copy has lost, as a share of what was there, is near one for a sharp picture; the blur is what is
missing from one, and of the two directions the larger counts.

Departs from the paper: only pixels whose nine all lie inside the picture are looked at, as the paper
does not say what lies beyond the border.

Shapes: H W picture in gray levels.
"""

from __future__ import annotations

from torch import Tensor

from relume.core.errors import PictureError
from relume.measures.gray import check_gray

MEAN_OF = 9
"""Pixels of the further blur."""

SMALLEST = MEAN_OF + 1
"""The smallest side in pixels that can be measured."""


def blur(gray: Tensor) -> float:
    """The share of detail that a further blur leaves.

    Args:
        gray: H × W, levels of any range, as of `gray_levels`.

    Returns:
        0 (every detail is as fine as a pixel) to 1 (nothing a further blur could take); good photos
        have 0.2 to 0.4.

    Raises:
        PictureError: a side is shorter than 10 pixels, or the picture is flat.
        ValueError: the picture is not H × W.
    """
    check_gray(gray, least=SMALLEST, measure="blur")
    found = [_along(gray.double()), _along(gray.double().T)]
    left = [share for share in found if share is not None]
    if not left:
        raise PictureError("blur needs some detail in the picture, and this one is flat")
    return max(left)


def _along(gray: Tensor) -> float | None:
    """The share left along the columns (eq. 1-4), or None where nothing varies along them."""
    reach = MEAN_OF // 2
    length = gray.shape[0] - MEAN_OF + 1
    blurred = gray[:length].clone()
    for shift in range(1, MEAN_OF):
        blurred += gray[shift : shift + length]
    blurred /= MEAN_OF
    detail = gray[reach : reach + length].diff(dim=0).abs_()
    lost = (detail - blurred.diff(dim=0).abs_()).clamp_min_(0)
    there = float(detail.sum())
    return 1 - float(lost.sum()) / there if there else None
