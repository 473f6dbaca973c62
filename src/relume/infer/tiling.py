"""Run an operator on a picture in overlapping tiles that give the same pixels as the whole.

A tile is cut with a halo as wide as the operator can look, so each output pixel
sees the same input as it would in the whole picture; the halo's own output is
thrown away. Rows of tiles make strips as wide as the picture, from top to bottom.

What is read for the tiles has one and the same size all over the picture (at its
borders the halo is wider inside), as engines prepare themselves for each size that
they meet, and hold memory for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from relume.core.errors import RelumeError

Run = Callable[[Tensor], Tensor]
Window = Callable[[int, int, int, int], Tensor]
"""Gives a part of the input, `B C h w`, for top, bottom, left and right."""

SMALLEST = 16
"""Longest side, in input pixels, of tiles that are not cut smaller where memory runs out."""

_NO_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory",
    # oneDNN's, when memory ends while it prepares or runs a layer that had run on other sizes.
    "could not create a primitive", "could not create a memory", "could not execute a primitive",
)  # fmt: skip
"""Words of PyTorch's errors by which it says that there is no memory left."""


def run_tiled(
    run: Run, low: Tensor, *, scale: int, tile: int, halo: int, advance: Callable[[float], None] | None = None
) -> Tensor:
    """Run an operator tile by tile.

    Args:
        run: maps `B C h w` to `B C sh sw`.
        low: the whole input `B C H W`.
        scale: s.
        tile: longest side of a tile without its halo, input pixels.
        halo: how far the operator looks, input pixels.
        advance: told the share of the picture done, 0..1, after each tile.

    Returns:
        The whole output `B C sH sW`, on the CPU.
    """
    height, width = low.shape[-2:]
    output: Tensor | None = None
    top = 0
    cutter = Tiler(run, scale=scale, tile=tile, halo=halo, advance=advance)
    for strip in cutter.strips(_window_of(low), height, width):
        if output is None:
            output = torch.empty(*strip.shape[:2], height * scale, width * scale)
        output[..., top : top + strip.shape[-2], :] = strip
        top += strip.shape[-2]
    assert output is not None
    return output


class Tiler:
    """Runs an operator on one picture in tiles, smaller ones where memory runs out.

    Args:
        run: maps `B C h w` to `B C sh sw`.
        scale: s.
        tile: longest side of a tile without its halo, input pixels.
        halo: how far the operator looks, input pixels.
        advance: told the share of the picture done, 0..1, after each tile.
        say: told when memory ran out and the tile was halved.
    """

    def __init__(
        self, run: Run, *, scale: int, tile: int, halo: int,
        advance: Callable[[float], None] | None = None, say: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self._run, self._scale, self._halo = run, scale, halo
        self._advance, self._say = advance, say
        self.tile = tile
        """As it is now; memory may have made it smaller."""

    def strips(self, window: Window, height: int, width: int) -> Iterator[Tensor]:
        """Yield the output from top to bottom in strips `B C sh' sW`, each a row of tiles.

        Args:
            window: gives parts of the input.
            height: H of the whole input.
            width: W of the whole input.

        Raises:
            RelumeError: memory does not even suffice for the smallest tiles.
        """
        for rows in (tall := _Cuts((0, height), self.tile)):
            strip: Tensor | None = None
            for columns in (wide := _Cuts((0, width), self.tile)):
                made = self._region(
                    window, _Part(rows, tall.longest, height), _Part(columns, wide.longest, width)
                )
                if strip is None:
                    strip = made if len(wide) == 1 else made.new_empty(*made.shape[:-1], width * self._scale)
                if strip is not made:
                    strip[..., columns[0] * self._scale : columns[1] * self._scale] = made
                if self._advance:
                    # Tiles come row by row, so what lies above and to the left is done.
                    done = rows[0] * width + (rows[1] - rows[0]) * columns[1]
                    self._advance(done / (height * width))
            assert strip is not None
            yield strip

    def _region(self, window: Window, rows: _Part, columns: _Part) -> Tensor:
        """Return the output for a part of the picture, in as many tiles as memory asks for."""
        longest = max(rows.inner[1] - rows.inner[0], columns.inner[1] - columns.inner[0])
        if longest <= self.tile:
            try:
                return self._tile(window, rows, columns)
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error):
                    raise
                if longest // 2 < SMALLEST:
                    raise RelumeError(
                        f"memory does not suffice even for tiles of {longest} pixels; close other programs, "
                        "or use --device cpu"
                    ) from error
            # Outside of the handler: the error holds what was in memory.
            self.tile = longest // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self._say:
                self._say(f"memory ran out; going on with tiles of {self.tile} pixels")
        parts = [
            torch.cat([self._region(window, part, side) for side in columns.cut(self.tile)], -1)
            for part in rows.cut(self.tile)
        ]
        return torch.cat(parts, -2)

    def _tile(self, window: Window, rows: _Part, columns: _Part) -> Tensor:
        (top, bottom), (left, right) = rows.outer(self._halo), columns.outer(self._halo)
        output = self._run(window(top, bottom, left, right))
        height, width = bottom - top, right - left
        if output.shape[-2:] != (height * self._scale, width * self._scale):
            raise ValueError(
                f"a tile of {width} x {height} gave {tuple(output.shape)} at scale {self._scale}"
            )
        return output[..., self._slice(rows.inner, top), self._slice(columns.inner, left)].float().cpu()

    def _slice(self, span: tuple[int, int], offset: int) -> slice:
        return slice((span[0] - offset) * self._scale, (span[1] - offset) * self._scale)


class _Cuts:
    """A side of the picture, or a part of it, cut into spans of at most `tile`, as equal as they can be."""

    def __init__(self, span: tuple[int, int], tile: int) -> None:
        start, length = span[0], span[1] - span[0]
        count = -(-length // tile)
        edges = [start + index * length // count for index in range(count + 1)]
        self._spans = list(itertools.pairwise(edges))
        self.longest = -(-length // count)

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._spans)


@dataclass(frozen=True)
class _Part:
    """What one tile makes of a side.

    Attributes:
        inner: the first pixel of its output and one past the last, in input pixels.
        longest: length of the longest of its fellows.
        length: of the whole side.
    """

    inner: tuple[int, int]
    longest: int
    length: int

    def outer(self, halo: int) -> tuple[int, int]:
        """Return what is read for it, as long as for all of its fellows."""
        long = min(self.length, self.longest + 2 * halo)
        start = min(max(0, self.inner[0] - halo), self.length - long)
        return start, start + long

    def cut(self, tile: int) -> Iterator[_Part]:
        cuts = _Cuts(self.inner, tile)
        return (_Part(span, cuts.longest, self.length) for span in cuts)


def ran_out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out; PyTorch says so on the CPU by a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error) for words in _NO_MEMORY
    )


def _window_of(low: Tensor) -> Window:
    def window(top: int, bottom: int, left: int, right: int) -> Tensor:
        return low[..., top:bottom, left:right]

    return window
