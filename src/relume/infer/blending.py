"""Run an operator of unbounded reach in tiles that melt into one another.

Where each output depends on the whole picture (global attention, a mean over all pixels), no halo makes
tiles give the pixels of the whole. Hard seams would show the difference; here neighbouring tiles share a
band in which one fades into the other. The result comes close to the whole, and `check_tiling` says how
close.

Along each side the weights are sin² rising over the shared band and cos² falling, so they sum to one, and
a tile weighs least at its edge, where it knows least. Weights of the two sides are multiplied.

Shapes: B batch, C channels, H W whole input, h w a tile, s scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from relume.core.errors import RelumeError
from relume.infer.tiling import SMALLEST, ran_out_of_memory

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Span:
    """One tile's extent along a side, in input pixels.

    Attributes:
        start: the first pixel.
        stop: one past the last.
        rise: how many it shares with the tile before.
        fall: how many it shares with the tile after.
    """

    start: int
    stop: int
    rise: int
    fall: int


def run_blended(
    run: Run, low: Tensor, *, scale: int, tile: int, overlap: int,
    advance: Callable[[float], None] | None = None, say: Callable[[str], None] | None = None,
) -> Tensor:  # fmt: skip
    """Run an operator tile by tile and blend.

    Args:
        run: maps `B C h w` to `B C sh sw`.
        low: the whole input `B C H W`.
        scale: s.
        tile: longest side of a tile, the shared bands counted, input pixels.
        overlap: how many input pixels neighbouring tiles share; at most a third of a tile.
        advance: told the share of the picture done, 0..1, after each tile.
        say: told when memory ran out and a tile was cut smaller.

    Returns:
        The whole output `B C sH sW`, on the CPU.

    Raises:
        ValueError: the overlap is negative or more than a third of a tile, or the tile is empty.
    """
    height, width = low.shape[-2:]
    output: Tensor | None = None
    top = 0
    strips = blended_strips(run, low, scale=scale, tile=tile, overlap=overlap, advance=advance, say=say)
    for strip in strips:
        if output is None:
            output = torch.empty(*strip.shape[:2], height * scale, width * scale)
        output[..., top : top + strip.shape[-2], :] = strip
        top += strip.shape[-2]
    assert output is not None
    return output


def blended_strips(
    run: Run, low: Tensor, *, scale: int, tile: int, overlap: int,
    advance: Callable[[float], None] | None = None, say: Callable[[str], None] | None = None,
) -> Iterator[Tensor]:  # fmt: skip
    """Yield the output of `run_blended` from top to bottom, each strip `B C h' sW` as soon as it is done."""
    height, width = low.shape[-2:]
    columns_of_tiles = list(spans(width, tile, overlap))
    shared: Tensor | None = None  # rows begun by the strip above
    for rows in spans(height, tile, overlap):
        strip: Tensor | None = None
        vertical = fade(rows, scale)[:, None]
        for columns in columns_of_tiles:
            made = _patiently(run, low[..., rows.start : rows.stop, columns.start : columns.stop], scale, say)
            if strip is None:
                strip = torch.zeros(*made.shape[:3], width * scale)
            strip[..., columns.start * scale : columns.stop * scale] += made * vertical * fade(columns, scale)
            if advance:
                # Without what is shared, so that the shares add up to one.
                done = rows.start * width + (rows.stop - rows.fall - rows.start) * (
                    columns.stop - columns.fall
                )
                advance(done / (height * width))
        assert strip is not None
        if shared is not None:
            strip[..., : shared.shape[-2], :] += shared
        whole = (rows.stop - rows.fall - rows.start) * scale
        shared = strip[..., whole:, :].clone()
        yield strip[..., :whole, :]


def _patiently(run: Run, low: Tensor, scale: int, say: Callable[[str], None] | None) -> Tensor:
    """Run on one tile, in blended quarters of it where memory runs out.

    Raises:
        RelumeError: memory does not even suffice for the smallest tiles.
    """
    longest = max(low.shape[-2:])
    try:
        return run(low).float().cpu()
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        if longest // 2 < SMALLEST:
            raise RelumeError(
                f"memory does not suffice even for tiles of {longest} pixels; close other programs, "
                "or use --device cpu"
            ) from error
    # Outside of the handler: the error holds what was in memory.
    tile = max(SMALLEST, 2 * longest // 3)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if say:
        say(f"memory ran out; going on with tiles of {tile} pixels")
    return run_blended(run, low, scale=scale, tile=tile, overlap=tile // 4, say=say)


def spans(length: int, tile: int, overlap: int) -> Iterator[Span]:
    """Cut a side into overlapping tiles, as nearly equal as they can be and none longer than `tile`."""
    if tile < 1 or not 0 <= overlap <= tile // 3:
        raise ValueError(f"tiles of {tile} pixels cannot overlap by {overlap}, at most by a third")
    if length <= tile:
        yield Span(0, length, 0, 0)
        return
    count = -(-(length - overlap) // (tile - overlap))
    starts = [index * (length - overlap) // count for index in range(count + 1)]
    for start, following in itertools.pairwise(starts):
        stop = following + overlap
        yield Span(start, stop, overlap if start else 0, overlap if stop < length else 0)


def fade(span: Span, scale: int) -> Tensor:
    """Return a tile's weights along one side, one for each output pixel."""
    weights = torch.ones((span.stop - span.start) * scale)
    if span.rise:
        weights[: span.rise * scale] *= _ramp(span.rise * scale)
    if span.fall:
        weights[-span.fall * scale :] *= _ramp(span.fall * scale).flip(0)
    return weights


def _ramp(length: int) -> Tensor:
    """Rise from 0 to 1; with its own mirror image it sums to 1."""
    return torch.sin((torch.arange(length) + 0.5) * (math.pi / 2 / length)).square()
