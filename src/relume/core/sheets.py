"""Contact sheets: labelled pictures side by side, for people who would rather look than read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from relume.core.files import whole

_MARGIN = 8
_PAPER = (24, 24, 24)
_INK = (240, 240, 240)


def contact_sheet(tiles: Sequence[tuple[str, Tensor]], *, columns: int = 0) -> Image.Image:
    """Lay pictures out in a grid, each under its label.

    Args:
        tiles: label (may hold line breaks) and picture `C H W` with values 0..1, C 1 or 3; of a cube, of
            any other number, three bands are shown, brightened.
        columns: pictures in a row; 0 puts all in one row.

    Returns:
        An RGB picture.
    """
    columns = columns or len(tiles)
    pictures = [_to_image(pixels) for _, pixels in tiles]
    cell_width = max(picture.width for picture in pictures)
    cell_height = max(picture.height for picture in pictures)
    size = max(12, cell_width // 32)
    font = ImageFont.load_default(size=size)
    lines = max(label.count("\n") + 1 for label, _ in tiles)
    label_height = math.ceil(1.4 * size) * lines + 4
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new(
        "RGB",
        (columns * (cell_width + _MARGIN) + _MARGIN, rows * (cell_height + label_height + _MARGIN) + _MARGIN),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for index, ((label, _), picture) in enumerate(zip(tiles, pictures, strict=True)):
        left = _MARGIN + (index % columns) * (cell_width + _MARGIN)
        top = _MARGIN + (index // columns) * (cell_height + label_height + _MARGIN)
        draw.multiline_text((left, top), label, font=font, fill=_INK)
        sheet.paste(picture, (left, top + label_height))
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as PNG, whole or not at all."""
    with whole(path) as partial:
        sheet.save(partial, format="PNG")


def _to_image(pixels: Tensor) -> Image.Image:
    count = pixels.shape[0]
    if count not in (1, 3):
        # Long waves as red. The brightest value of a cube is that of a glint, far from most.
        pixels = pixels[[count * 5 // 6, count // 2, count // 6]].float() * 2
    levels = (pixels.detach().float().cpu().clamp(0, 1) * 255 + 0.5).floor().byte()
    array = levels.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array))
