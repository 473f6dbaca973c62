"""Check what tiling rests on: how far an operator looks, and that its tiles give the pixels of the whole.

Shapes: B batch, C channels, h w input, s scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relume.infer.blending import run_blended
from relume.infer.operators import Operator
from relume.infer.tiling import run_tiled

TOLERANCE = 1e-5
"""What rounding in float32 may add up to between a tile and the whole; 1/400 of a level of 8 bits."""

HALF_A_LEVEL = 2**-17
"""Half a level of 16 bits: what changes an output by less is not seen in any file."""

_TRIALS = 2


@dataclass(frozen=True)
class Reach:
    """How far an output looks into the input, measured in input pixels from its own.

    Attributes:
        farthest: the last distance at which an input changes the output at all; None where that is the
            border of the picture measured on, so that the reach is at least so far.
        visible: the distance beyond which all inputs together, each changed from black to white, would
            change the outputs of one pixel, added up, by less than half a level of 16 bits (to first
            order); None likewise.
        side: of the square that was measured on.
    """

    farthest: int | None
    visible: int | None
    side: int


@dataclass(frozen=True)
class TilingDifference:
    """The largest difference between a picture run in tiles and run whole.

    Attributes:
        height: of the input.
        width: of the input.
        tile: longest side of the tiles, input pixels.
        largest: the difference, where the output is in 0..1.
    """

    height: int
    width: int
    tile: int
    largest: float


def measure_reach(run: Callable[[Tensor], Tensor], *, channels: int, scale: int, side: int) -> Reach:
    """Measure how far the middle of an output looks, by derivatives in float64.

    A derivative shows what the sum of many effects, or rounding, would hide: it is exactly zero where
    nothing is read, and far from the smallest number where little is.

    Args:
        run: maps `1 C h w` of float64 to `1 C sh sw`, differentiable: a network made `double`.
        channels: C.
        scale: s.
        side: of the square input. To find a reach of r it must be at least 2 r + 3.
    """
    centre = side // 2
    block = slice(centre * scale, (centre + 1) * scale)
    generator = torch.Generator().manual_seed(0)
    effect = torch.zeros(side, side, dtype=torch.float64)
    # A second input, as an activation may be at rest under one.
    for _ in range(_TRIALS):
        # Of half the contrast: what is clamped passes no derivative on.
        low = torch.rand(1, channels, side, side, dtype=torch.float64, generator=generator) / 2 + 0.25
        low.requires_grad_()
        output = run(low)[..., block, block]
        # One derivative for all outputs of the block; random factors, so that none cancels another.
        factors = torch.rand(output.shape, dtype=torch.float64, generator=generator)
        (gradient,) = torch.autograd.grad((output * factors).sum(), low)
        effect = torch.maximum(effect, gradient.abs().sum((0, 1)))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    distance = torch.maximum((rows - centre).abs(), (columns - centre).abs())
    rings = torch.zeros(centre + 1, dtype=torch.float64)
    rings.index_add_(0, distance.flatten(), effect.flatten())
    beyond = rings.flip(0).cumsum(0).flip(0)  # what comes from each distance on
    return Reach(_last(beyond > 0), _last(beyond >= HALF_A_LEVEL), side)


def _last(felt: Tensor) -> int | None:
    """Return the last distance that is felt, None where it is the last of all."""
    count = int(felt.sum())
    return None if count == len(felt) else max(0, count - 1)


def check_tiling(
    operator: Operator, *, tile: int, overlap: int = 0, sizes: Sequence[tuple[int, int]] | None = None
) -> list[TilingDifference]:
    """Run pictures of noise whole and in tiles, as is done with this operator, and compare.

    Args:
        operator: cut with its halo; where that is unbounded, its tiles are blended.
        tile: longest side of the tiles in input pixels.
        overlap: of blended tiles.
        sizes: height and width of the inputs; None takes those of `telling_sizes`.
    """
    differences = []
    for height, width in sizes or telling_sizes(operator.halo, tile):
        low = torch.rand(1, operator.channels, height, width, generator=torch.Generator().manual_seed(height))
        whole = operator(low)
        if operator.halo is None:
            tiled = run_blended(operator, low, scale=operator.scale, tile=tile, overlap=overlap)
        else:
            tiled = run_tiled(operator, low, scale=operator.scale, tile=tile, halo=operator.halo)
        differences.append(TilingDifference(height, width, tile, (tiled - whole).abs().max().item()))
    return differences


def telling_sizes(halo: int | None, tile: int) -> list[tuple[int, int]]:
    """Return sizes at which a mistake would show: a pixel, a line, odd, and with tiles that touch no border.

    Large ones are large along one side only, so that the check stays quick.
    """
    inner = 2 * (tile if halo is None else tile + halo) + 3
    narrow = tile // 2 + 1
    return [(1, 1), (1, inner), (7, 5), (tile + 1, tile - 1 or 1), (narrow, inner), (inner, narrow)]
