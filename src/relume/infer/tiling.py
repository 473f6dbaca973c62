"""Run an operator on a picture in overlapping tiles that give the same pixels as the whole.

A tile is cut with a halo as wide as the operator can look, so each output pixel
sees the same input as it would in the whole picture; the halo's own output is
thrown away. Rows of tiles make strips as wide as the picture, from top to bottom.
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

_SMALLEST = 16


@dataclass(frozen=True)
class Tile:
    """One piece of a picture, in input pixels.

    Attributes:
        rows: first row and one past the last row of the output that this tile makes.
        columns: likewise.
        outer_rows: the rows that are read for it, with the halo.
        outer_columns: likewise.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    outer_rows: tuple[int, int]
    outer_columns: tuple[int, int]


def tiles(height: int, width: int, *, tile: int, halo: int) -> Iterator[Tile]:
    """Cut a picture into tiles of at most `tile` pixels a side, all as nearly equal as they can be."""
    for rows in _cuts((0, height), tile):
        for columns in _cuts((0, width), tile):
            yield Tile(rows, columns, _widened(rows, halo, height), _widened(columns, halo, width))


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
        for rows in _cuts((0, height), self.tile):
            strip: list[Tensor] = []
            for columns in _cuts((0, width), self.tile):
                strip.append(self._region(window, rows, columns, height, width))
                if self._advance:
                    # Tiles come row by row, so what lies above and to the left is done.
                    done = rows[0] * width + (rows[1] - rows[0]) * columns[1]
                    self._advance(done / (height * width))
            yield strip[0] if len(strip) == 1 else torch.cat(strip, -1)

    def _region(
        self, window: Window, rows: tuple[int, int], columns: tuple[int, int], height: int, width: int
    ) -> Tensor:
        """Return the output for a part of the picture, in as many tiles as memory asks for."""
        longest = max(rows[1] - rows[0], columns[1] - columns[0])
        if longest <= self.tile:
            try:
                return self._tile(window, rows, columns, height, width)
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error):
                    raise
                if longest // 2 < _SMALLEST:
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
            torch.cat(
                [self._region(window, part, side, height, width) for side in _cuts(columns, self.tile)], -1
            )
            for part in _cuts(rows, self.tile)
        ]
        return torch.cat(parts, -2)

    def _tile(
        self, window: Window, rows: tuple[int, int], columns: tuple[int, int], height: int, width: int
    ) -> Tensor:
        (top, bottom), (left, right) = (
            _widened(rows, self._halo, height),
            _widened(columns, self._halo, width),
        )
        output = self._run(window(top, bottom, left, right))
        return output[..., self._slice(rows, top), self._slice(columns, left)].float().cpu()

    def _slice(self, span: tuple[int, int], offset: int) -> slice:
        return slice((span[0] - offset) * self._scale, (span[1] - offset) * self._scale)


def ran_out_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out; PyTorch says so on the CPU by a plain RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error) for words in ("can't allocate memory", "not enough memory", "out of memory")
    )


def _window_of(low: Tensor) -> Window:
    def window(top: int, bottom: int, left: int, right: int) -> Tensor:
        return low[..., top:bottom, left:right]

    return window


def _cuts(span: tuple[int, int], tile: int) -> list[tuple[int, int]]:
    start, length = span[0], span[1] - span[0]
    count = -(-length // tile)
    edges = [start + index * length // count for index in range(count + 1)]
    return list(itertools.pairwise(edges))


def _widened(span: tuple[int, int], halo: int, length: int) -> tuple[int, int]:
    return max(0, span[0] - halo), min(length, span[1] + halo)
