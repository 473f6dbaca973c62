"""Run a model on a picture in overlapping tiles that give the same pixels as the whole.

A tile is cut with a halo as wide as the model can look, so each output pixel
sees the same input as it would in the whole picture; the halo's own output is
thrown away.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]


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
    for rows in _cuts(height, tile):
        for columns in _cuts(width, tile):
            yield Tile(rows, columns, _widened(rows, halo, height), _widened(columns, halo, width))


def run_tiled(
    run: Run, low: Tensor, *, scale: int, tile: int, halo: int, advance: Callable[[float], None] | None = None
) -> Tensor:
    """Run a model tile by tile.

    Args:
        run: maps `B C h w` to `B C sh sw`.
        low: the whole input `B C H W`.
        scale: s.
        tile: longest side of a tile without its halo, input pixels.
        halo: how far the model looks, input pixels.
        advance: told the share of the picture done, 0..1, after each tile.

    Returns:
        The whole output `B C sH sW`, on the CPU.
    """
    height, width = low.shape[-2:]
    output: Tensor | None = None
    for piece in tiles(height, width, tile=tile, halo=halo):
        (top, bottom), (left, right) = piece.outer_rows, piece.outer_columns
        enlarged = run(low[..., top:bottom, left:right])
        if output is None:
            output = torch.empty(*enlarged.shape[:2], height * scale, width * scale)
        inner = enlarged[..., _slice(piece.rows, scale, top), _slice(piece.columns, scale, left)]
        output[..., _slice(piece.rows, scale), _slice(piece.columns, scale)] = inner.float().cpu()
        if advance:
            # Tiles come row by row, so what lies above and to the left is done.
            advance(
                (piece.rows[0] * width + (piece.rows[1] - piece.rows[0]) * piece.columns[1])
                / (height * width)
            )
    assert output is not None
    return output


def _cuts(length: int, tile: int) -> list[tuple[int, int]]:
    count = -(-length // tile)
    edges = [index * length // count for index in range(count + 1)]
    return list(itertools.pairwise(edges))


def _widened(span: tuple[int, int], halo: int, length: int) -> tuple[int, int]:
    return max(0, span[0] - halo), min(length, span[1] + halo)


def _slice(span: tuple[int, int], scale: int, offset: int = 0) -> slice:
    return slice((span[0] - offset) * scale, (span[1] - offset) * scale)
