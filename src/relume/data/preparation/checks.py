"""What a photo is worth to a training, in figures: how much JPEG has taken, how sharp, whom it is like.

Shapes: H height, W width; luma is float32 H×W, 0..255.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from relume.core.pictures.contents import Contents
from relume.core.pictures.opening import open_regular
from relume.core.pictures.survey import jpeg_segments
from relume.data.degradations import noise
from relume.data.degradations.jpeg import LUMINANCE

_BLOCK = 8
SMALL = 32
"""Side of a thumbnail, pixels."""

_FREQUENCIES = 8


def jpeg_quality(path: Path) -> int | None:
    """Estimate the quality, 1..100 on libjpeg's scale, with which a JPEG file was last saved.

    Compared are the quantisation steps of its luminance; other programs' tables get the quality whose
    steps are most alike.

    Returns:
        The quality, or None where the file is no JPEG or holds no table.

    Raises:
        PictureError: the file cannot be opened.
        OSError: it cannot be read.
    """
    descriptor = open_regular(path)
    try:
        contents = Contents(descriptor)
        if contents[:2] != b"\xff\xd8":
            return None
        table = _luminance_table(contents)
    finally:
        os.close(descriptor)
    if table is None:
        return None
    # Steps are compared by their ratio: 1 beside 2 is as far as 40 beside 80.
    distances = np.abs(np.log(_tables()) - np.log(table)).sum(1)
    return int(distances.argmin()) + 1


def _luminance_table(contents: Contents) -> np.ndarray | None:
    """Return the 64 steps of quantisation table 0, sorted by place in the file's zigzag."""
    for marker, start, end in jpeg_segments(contents):
        if marker != 0xDB:
            continue
        data = contents[start:end]
        while data:
            wide, number = data[0] >> 4, data[0] & 15
            size = 128 if wide else 64
            if len(data) < 1 + size:
                break
            if number == 0:
                steps = np.frombuffer(data[1 : 1 + size], ">u2" if wide else "u1").astype(np.float64)
                return np.maximum(steps, 1.0)
            data = data[1 + size :]
    return None


@cache
def _tables() -> np.ndarray:
    """Libjpeg's luminance tables of the qualities 1..100, in zigzag order: 100×64."""
    zigzag = sorted(
        range(64),
        key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8),
    )
    base = np.array(LUMINANCE).ravel()[zigzag]
    scales = [5000 // quality if quality < 50 else 200 - 2 * quality for quality in range(1, 101)]
    return np.stack([np.clip((base * scale + 50) // 100, 1, 255) for scale in scales]).astype(np.float64)


def luma(rows: Tensor) -> Tensor:
    """Return the brightness of `C H W` with values 0..1, C 1 or 3, as float32 `H W`, 0..255."""
    return noise.luma(rows)[0] * 255


def blockiness(brightness: Tensor) -> float:
    """Tell how high the edges of JPEG's 8×8 blocks stand, also in what was saved in another format since.

    An edge between blocks is a step that its neighbours do not share. Of such steps, the mean at each of
    the eight places where a grid may begin is taken, and the highest is compared with their median.

    Args:
        brightness: `H W`.

    Returns:
        Levels of 255, the larger of both directions: below 1 where no grid shows, from about 2 on it
        can be seen. 0 for pictures too small to tell.
    """
    return max(_grid(brightness), _grid(brightness.T))


def _grid(brightness: Tensor) -> float:
    if brightness.shape[1] < 4 * _BLOCK or brightness.shape[0] < _BLOCK:
        return 0.0
    steps = brightness.diff(dim=1).abs()
    # Above its neighbours' mean: a texture's steps cancel, an edge between blocks stays.
    excess = (steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2).clamp(min=0).mean(0)
    places = excess[: excess.numel() // _BLOCK * _BLOCK].view(-1, _BLOCK).mean(0)
    return float(places.max() - places.median())


def sharpness(brightness: Tensor) -> float:
    """Return the variance of the Laplacian of `H W`: below about 20 a piece is blurred or flat."""
    if min(brightness.shape) < 3:
        return 0.0
    inside = brightness[1:-1, 1:-1]
    laplacian = (
        brightness[:-2, 1:-1] + brightness[2:, 1:-1] + brightness[1:-1, :-2] + brightness[1:-1, 2:]
        - 4 * inside
    )  # fmt: skip
    return float(laplacian.var(unbiased=False))


def thumbnail(bands: Iterable[Tensor]) -> Tensor:
    """Shrink a picture, given by bands of its rows `h W`, to 32×32 means."""
    # Columns first, band by band, so that no more than a band is ever in hand.
    narrow = torch.cat([F.adaptive_avg_pool1d(band[None], SMALL)[0] for band in bands])
    return F.adaptive_avg_pool1d(narrow.T[None], SMALL)[0].T


def likeness(small: Tensor) -> int:
    """Return a 64-bit hash that pictures share which look alike: of other size, format or brightness.

    Of the cosine transform, the 8×8 lowest frequencies are compared with their median (as "pHash" does,
    Zauner 2010).

    Args:
        small: the picture's `thumbnail`.
    """
    basis = _cosines()
    low = (basis @ small @ basis.T).flatten()
    # The mean brightness, first of all, says nothing of what is to be seen.
    bits = low > low[1:].median()
    return sum(1 << place for place, bit in enumerate(bits.tolist()) if bit)


@cache
def _cosines() -> Tensor:
    """The 8 lowest rows of the cosine transform (DCT-II) of 32 values."""
    place = torch.arange(SMALL) + 0.5
    return torch.cos(math.pi / SMALL * torch.arange(_FREQUENCIES)[:, None] * place)
