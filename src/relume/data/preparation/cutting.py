"""Where a photo is cut: pieces of one size that overlap and cover every pixel."""

from __future__ import annotations

from dataclasses import dataclass

from relume.core.errors import ConfigError


@dataclass(frozen=True)
class Box:
    """A piece's place in its photo, in pixels.

    Attributes:
        top: first row.
        left: first column.
        height: rows.
        width: columns.
    """

    top: int
    left: int
    height: int
    width: int


def starts(length: int, side: int, overlap: int) -> list[int]:
    """Return where pieces begin along one edge of a photo, spread evenly from one end to the other.

    Args:
        length: of the edge, pixels.
        side: of a piece; a shorter edge gives one piece of its own length.
        overlap: pixels that neighbours share at least, so any patch of up to `overlap` + 1
            pixels lies whole in one piece.

    Raises:
        ConfigError: the overlap is not smaller than the piece.
    """
    if not 0 <= overlap < side:
        raise ConfigError(f"an overlap of {overlap} pixels does not go with pieces of {side}; choose less")
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    # Rounded down, each is at most a whole number of pixels behind the one before, so none share less.
    return [index * (length - side) // (count - 1) for index in range(count)]


def boxes(height: int, width: int, *, side: int, overlap: int) -> list[Box]:
    """Return the pieces of a photo, row by row; all have one size.

    Raises:
        ConfigError: the overlap is not smaller than the piece.
    """
    return [
        Box(top, left, min(side, height), min(side, width))
        for top in starts(height, side, overlap)
        for left in starts(width, side, overlap)
    ]
