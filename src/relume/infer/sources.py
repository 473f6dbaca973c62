"""What a model is given of a picture: colour and alpha apart, by rows and windows, from memory or disk.

Shapes: C channels of colour, h w of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from relume.core.pictures import Picture, StoredPicture, bleed_canvas, bleed_colour

_ROWS = 256
"""Rows that are looked at at once."""


class Source:
    """The planes of a picture, by rows and windows; hidden colours filled in."""

    def __init__(self, picture: Picture | StoredPicture) -> None:
        self.height, self.width = picture.height, picture.width
        self.colours, self.transparent = picture.channels, picture.transparent
        self.bands = self.colours + self.transparent
        if isinstance(picture, Picture) and picture.alpha is not None:
            picture = picture.replace(pixels=bleed_colour(picture.pixels, picture.alpha))
        elif isinstance(picture, StoredPicture) and picture.transparent:
            bleed_canvas(picture.canvas)
        self._picture = picture

    def rows(self, top: int, bottom: int) -> Tensor:
        """Return rows of all bands."""
        return self._picture.rows(top, bottom)

    def colour(self, top: int, bottom: int) -> Tensor:
        """Return rows without alpha."""
        return self.rows(top, bottom)[: self.colours]

    def colour_window(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """Return a part without alpha, `1 C h w`."""
        return self._window(top, bottom, left, right)[: self.colours][None]

    def alpha_window(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """Return a part of the alpha, `1 1 h w`."""
        return self._window(top, bottom, left, right)[self.colours :][None]

    def flat_alpha(self) -> float | None:
        """Return the alpha where it is the same everywhere, as in most pictures that have one; else None."""
        if not self.transparent:
            return None
        first: float | None = None
        for top in range(0, self.height, _ROWS):
            alpha = self.rows(top, min(self.height, top + _ROWS))[-1]
            first = float(alpha[0, 0]) if first is None else first
            if not bool((alpha == first).all()):
                return None
        return first

    def unchanged(self, advance: Callable[[float], None] | None) -> Iterator[Tensor]:
        """Yield the picture as it is, for what is only resampled.

        Args:
            advance: told the share done, 0..1.
        """
        for top in range(0, self.height, _ROWS):
            bottom = min(self.height, top + _ROWS)
            yield self.rows(top, bottom).clone()
            if advance:
                advance(bottom / self.height)

    def _window(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        if isinstance(self._picture, StoredPicture):
            return self._picture.canvas.window(top, bottom, left, right)
        return self.rows(top, bottom)[..., left:right]
