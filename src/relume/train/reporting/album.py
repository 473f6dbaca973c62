"""Validation pictures over time, small enough to lie inside a page.

Every picture is a sheet as `train.validation` saves it: bicubic or the input, the output, the original
side by side.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

_Each = TypeVar("_Each")
_MOST_STEPS = 8
_SHEET_WIDTH = 1100
_DETAIL = 184
_QUALITY = 78
_MOST_PIXELS = 100_000_000
_MARGIN = 8
"""Between the pictures of a contact sheet and round them (`core.sheets`)."""


@dataclass(frozen=True)
class Shot:
    """A sheet at a step.

    Attributes:
        step: of the training.
        sheet: the whole sheet, as a data address.
        size: width and height of `sheet`.
        details: the middle of bicubic or the input, of output and original at their full size, as data
            addresses.
    """

    step: int
    sheet: str
    size: tuple[int, int]
    details: tuple[str, str, str]


def shots(series: list[tuple[int, Path]], problems: list[str]) -> list[Shot]:
    """Read a picture's sheets, of many some that are spread over the run, first and last among them."""
    found = []
    for step, path in spread(series, _MOST_STEPS):
        try:
            found.append(_shot(step, path))
        except UnidentifiedImageError:
            problems.append(f"The picture {path.name} is no PNG file.")
        except (OSError, ValueError, SyntaxError) as error:
            problems.append(f"The picture {path.name} cannot be read: {error}")
    return found


def spread(series: Sequence[_Each], most: int) -> list[_Each]:
    """Return at most so many (2 or more) of a series, at even distances, first and last among them."""
    if len(series) <= most:
        return list(series)
    return [series[round(index * (len(series) - 1) / (most - 1))] for index in range(most)]


def _shot(step: int, path: Path) -> Shot:
    with Image.open(path, formats=["PNG"]) as opened:
        if opened.width * opened.height > _MOST_PIXELS:
            raise ValueError(f"{opened.width}x{opened.height} is too large")
        sheet = opened.convert("RGB")
    apart = (sheet.width - _MARGIN) // 3
    side = max(1, min(_DETAIL, int(apart * 0.8), int(sheet.height * 0.7)))
    top, left = (sheet.height - side) // 2, (sheet.width - side) // 2
    corners = [(left + place * apart, top) for place in (-1, 0, 1)]
    details = [sheet.crop((left, top, left + side, top + side)) for left, top in corners]
    if sheet.width > _SHEET_WIDTH:
        height = max(1, round(sheet.height * _SHEET_WIDTH / sheet.width))
        sheet = sheet.resize((_SHEET_WIDTH, height), Image.Resampling.LANCZOS)
    plain, output, original = map(_address, details)
    return Shot(step, _address(sheet), sheet.size, (plain, output, original))


def _address(picture: Image.Image) -> str:
    written = io.BytesIO()
    picture.save(written, format="WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"
