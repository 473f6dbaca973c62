"""Keep what hides under transparent pixels from leaking into what is seen.

A file may hold any colour, often black or white, where alpha is 0. Enlarging mixes
neighbours, so that colour would draw a fringe around every cut-out.

Shapes: C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from relume.core.pictures.canvas import ROWS, Canvas, Levels

# Chamfer weights 3 (straight) and 4 (diagonal) stay within 8 % of three times the
# Euclidean distance, and two sweeps over the rows find the minimum exactly.
_STRAIGHT = 3
_DIAGONAL = 4
# One int64 carries a distance (above) and a pixel's flat index (below), so that
# the minimum carries its own source along and ties always go to the lower index.
_SHIFT = 36
_FAR = np.int64(1) << 61
_INDEX = (np.int64(1) << _SHIFT) - 1
Keys = npt.NDArray[np.int64]


def bleed_colour(pixels: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Give fully transparent pixels the colour of the nearest visible one.

    Visible pixels (alpha above 0) stay exactly as they are. "Nearest" is measured by
    the 3-4 chamfer distance; the result is the same on every run.

    Args:
        pixels: C×H×W.
        alpha: 1×H×W, 0..1.

    Returns:
        C×H×W on the device of `pixels`; `pixels` itself where nothing is to be done
        (all is visible, or nothing is).
    """
    visible = alpha[0].detach().cpu().numpy() > 0
    if visible.all() or not visible.any():
        return pixels
    sources = torch.from_numpy(_nearest(visible)).to(pixels.device)
    hidden = torch.from_numpy(np.flatnonzero(~visible)).to(pixels.device)
    filled = pixels.clone(memory_format=torch.contiguous_format)
    flat = filled.view(filled.shape[0], -1)
    for channel in flat:
        channel[hidden] = channel[sources]
    return filled


def bleed_canvas(canvas: Canvas) -> None:
    """Do what `bleed_colour` does to a canvas whose last band is alpha, in place and some rows at a time.

    Where the canvas lies, memory or disk, it takes 8 bytes for each pixel in the meantime.

    Raises:
        ValueError: When the canvas has no alpha.
        PictureError: When it lies on disk and there is no room for that.
    """
    if canvas.bands not in (2, 4):
        raise ValueError(f"a canvas of {canvas.bands} bands has no alpha")
    tops = range(0, canvas.height, ROWS)
    with Canvas.empty(canvas.height, canvas.width, 4, 16, folder=canvas.folder) as store:
        hidden = visible = False
        above: Keys | None = None
        for top in tops:
            seen = canvas.levels(top, min(top + ROWS, canvas.height))[..., -1] > 0
            hidden, visible = hidden or not seen.all(), visible or bool(seen.any())
            keys = _start(seen, top * canvas.width)
            _sweep(keys, above)
            above = keys[-1]
            # A key is as wide as four levels of 16 bits.
            store.put_levels(top, keys.view(np.uint16).reshape(*seen.shape, 4))
        if not (hidden and visible):
            return
        below: Keys | None = None
        for top in reversed(tops):
            levels = canvas.levels(top, min(top + ROWS, canvas.height)).copy()
            stored = store.levels(top, top + levels.shape[0])
            keys = np.ascontiguousarray(stored).view(np.int64).reshape(levels.shape[:2]).copy()
            _sweep(keys[::-1], below)
            below = keys[0]
            gaps = levels[..., -1] == 0
            levels[gaps, :-1] = _colours_at(canvas, keys[gaps] & _INDEX)
            canvas.put_levels(top, levels)


def _colours_at(canvas: Canvas, flat: Keys) -> Levels:
    """Return the colours, N×(bands - 1), of N pixels by their flat indices."""
    rows, columns = flat // canvas.width, flat % canvas.width
    colours = np.empty((len(flat), canvas.bands - 1), dtype=canvas.levels(0, 0).dtype)
    for block in np.unique(rows // ROWS) * ROWS:
        inside = (rows >= block) & (rows < block + ROWS)
        levels = canvas.levels(int(block), min(int(block) + ROWS, canvas.height))
        colours[inside] = levels[rows[inside] - block, columns[inside], :-1]
    return colours


def _nearest(visible: npt.NDArray[np.bool_]) -> Keys:
    """Return, for each hidden pixel in reading order, the flat index of its nearest visible pixel."""
    keys = _start(visible, 0)
    _sweep(keys, None)
    _sweep(keys[::-1], None)
    found: Keys = keys[~visible] & _INDEX
    return found


def _start(visible: npt.NDArray[np.bool_], first: int) -> Keys:
    """Return the keys of rows before any sweep; `first` is the flat index that they begin with."""
    indices = np.arange(first, first + visible.size, dtype=np.int64).reshape(visible.shape)
    return np.where(visible, indices, _FAR)


def _sweep(keys: Keys, previous: Keys | None) -> None:
    """Carry the nearest sources downwards through the rows, in place; `previous` is the row above them."""
    straight = np.int64(_STRAIGHT) << _SHIFT
    diagonal = np.int64(_DIAGONAL) << _SHIFT
    ramp = (np.arange(keys.shape[1], dtype=np.int64) * _STRAIGHT) << _SHIFT
    for row in keys:
        if previous is not None:
            np.minimum(row, previous + straight, out=row)
            np.minimum(row[1:], previous[:-1] + diagonal, out=row[1:])
            np.minimum(row[:-1], previous[1:] + diagonal, out=row[:-1])
        # min over x' of d(x') + 3·|x - x'| is a running minimum once 3·x is taken off.
        np.minimum(row, np.minimum.accumulate(row - ramp) + ramp, out=row)
        np.minimum(row, np.minimum.accumulate((row + ramp)[::-1])[::-1] - ramp, out=row)
        previous = row
