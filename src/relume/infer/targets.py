"""What size a user asks for, and which models in a row reach it.

Sides are rounded half up and never below 1. Numbers are taken as they are written: a scale of 1.15 on 10
pixels is exactly 11.5, so 12, whatever binary makes of 1.15.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fractions import Fraction

from relume.core.errors import RelumeError

LARGEST_FACTOR = 64
"""How many times longer an output side may be: three models of x4 in a row."""

LARGEST_SIDE = 2**20

_CROOKED = Fraction(1, 100)
"""Change of the aspect ratio from which it is told."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The size asked for, in one way: one attribute is set, or width and height together.

    Attributes:
        scale: how many times longer each side gets; any number above 0, so 2.5 or 0.5 as well.
        width: the output's, in pixels; the height follows the aspect ratio unless it is given too.
        height: likewise; both make the exact size, even where that stretches the picture.
        megapixels: width times height in millions, as nearly as the aspect ratio allows.
        fit: width and height of a box; the output is the largest inside that keeps the aspect ratio.

    Raises:
        RelumeError: nothing is asked for, several things at once, or nothing above zero.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    megapixels: float | None = None
    fit: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        wishes = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in wishes.items() if value is not None}
        if len(given) != 1 and set(given) != {"width", "height"}:
            what = f"not {' and '.join(given)} at once" if given else "none was asked for"
            raise RelumeError(
                f"one size is needed, {what}; choose one of scale, width, height, megapixels and fit, "
                "or width with height"
            )
        for name, value in given.items():
            smallest = min(value) if isinstance(value, tuple) else value
            if not (math.isfinite(smallest) and smallest > 0):
                raise RelumeError(f"{name} {_shown(value)} makes no picture; choose a number above 0")
            if smallest > LARGEST_SIDE**2:
                raise RelumeError(f"{name} {_shown(value)} passes every limit; choose a smaller size")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the output's height and width for an input's.

        Raises:
            RelumeError: the output would be too large, or too many times larger.
        """
        size = self._size(height, width)
        factor = max(Fraction(size[0], height), Fraction(size[1], width))
        shown = f"{width}x{height} to {size[1]}x{size[0]}"
        if factor > LARGEST_FACTOR:
            raise RelumeError(
                f"{shown} is {float(factor):.4g} times larger, more than the limit of {LARGEST_FACTOR}; "
                "choose a smaller size"
            )
        if max(size) > LARGEST_SIDE:
            raise RelumeError(
                f"{shown} passes the limit of {LARGEST_SIDE} pixels a side; choose a smaller size"
            )
        return size

    def note(self, height: int, width: int) -> str | None:
        """Return what a user should know of the output's shape, for an input's height and width."""
        if self.width is None or self.height is None:
            return None
        stretch = Fraction(self.width, self.height) / Fraction(width, height)
        if 1 / (1 + _CROOKED) < stretch < 1 + _CROOKED:
            return None
        how, by = ("wider", stretch) if stretch > 1 else ("taller", 1 / stretch)
        return (
            f"The picture was stretched: {self.width}x{self.height} is {float(by):.2f} times {how} in shape "
            f"than {width}x{height}."
        )

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.width is not None and self.height is not None:
            return self.height, self.width
        factor = self._factor(height, width)
        return _rounded(height * factor), _rounded(width * factor)

    def _factor(self, height: int, width: int) -> Fraction:
        """How many times longer both sides get."""
        if self.scale is not None:
            return _as_written(self.scale)
        if self.width is not None:
            return Fraction(self.width, width)
        if self.height is not None:
            return Fraction(self.height, height)
        if self.fit is not None:
            return min(Fraction(self.fit[0], width), Fraction(self.fit[1], height))
        assert self.megapixels is not None
        return Fraction(math.sqrt(_as_written(self.megapixels) * 1_000_000 / (width * height)))


def box(text: str) -> tuple[int, int]:
    """Read "1920x1080" as width and height.

    Raises:
        RelumeError: it is not written so.
    """
    width, by, height = text.lower().replace("×", "x").partition("x")
    if not by or not (width.strip().isdecimal() and height.strip().isdecimal()):
        raise RelumeError(f"a size is written like 1920x1080 (width x height), not {text!r}")
    return int(width), int(height)


def steps(size_in: tuple[int, int], size_out: tuple[int, int], scales: Iterable[int]) -> tuple[int, ...]:
    """Choose the models to run one after the other, by their scales.

    Together they enlarge by at least what is asked for; resampling brings the rest. Of all that do, the
    fewest are taken, of these the smallest product, and of these the order that costs least. A model's
    work grows with its input, so the smaller scale comes first. (Larger first is a little better where no
    cost counts: luma PSNR of CFSR on nine photos for x6 26.02 dB instead of 25.98 at twice the work, for
    x8 24.00 instead of 23.81 at 3.4 times.)

    Args:
        size_in: the input's height and width.
        size_out: the output's.
        scales: of the models there are.

    Returns:
        The scales in order; none where the output is no larger than the input on either side.

    Raises:
        RelumeError: no model enlarges.
    """
    factor = max(Fraction(after, before) for before, after in zip(size_in, size_out, strict=True))
    if factor <= 1:
        return ()
    useful = sorted({scale for scale in scales if scale > 1})
    if not useful:
        raise RelumeError(
            "this model does not enlarge; choose one that does, or ask for the picture's own size"
        )
    count = 1
    while useful[-1] ** count < factor:
        count += 1
    enough = (
        chain
        for chain in itertools.combinations_with_replacement(useful, count)
        if math.prod(chain) >= factor
    )
    return min(enough, key=lambda chain: (math.prod(chain), work(chain)))


def work(chain: tuple[int, ...]) -> int:
    """Return the pixels that the models of a chain take in, for each pixel of the input."""
    return sum(math.prod(chain[:done]) ** 2 for done in range(len(chain)))


def _rounded(side: Fraction) -> int:
    return max(1, math.floor(side + Fraction(1, 2)))


def _as_written(number: float) -> Fraction:
    # The shortest text that gives this float: what was typed.
    return Fraction(repr(float(number)))


def _shown(value: float | tuple[int, int]) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"
