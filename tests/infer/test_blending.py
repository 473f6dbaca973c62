"""Tiles that melt into one another: where they lie, what they weigh, and what comes out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relume.core.errors import RelumeError
from relume.infer.blending import blended_strips, fade, run_blended, spans

sizes = {"length": st.integers(1, 90), "tile": st.integers(1, 24), "share": st.floats(0, 1)}


def enlarged(low: Tensor, scale: int = 2) -> Tensor:
    return low.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


@given(**sizes, scale=st.integers(1, 4))
def test_weights_sum_to_one_and_no_tile_is_too_long(length, tile, share, scale):
    overlap = int(share * (tile // 3))
    total = torch.zeros(length * scale)
    pieces = list(spans(length, tile, overlap))
    for piece in pieces:
        assert piece.stop - piece.start <= tile
        total[piece.start * scale : piece.stop * scale] += fade(piece, scale)
    assert (total - 1).abs().max() <= 1e-6
    assert (pieces[0].start, pieces[-1].stop) == (0, length)
    assert all(piece.rise == overlap for piece in pieces[1:])


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(1, 20), share=st.floats(0, 1))
def test_what_treats_each_pixel_alone_comes_out_as_it_does_whole(height, width, tile, share):
    low = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * 41 + width))
    told: list[float] = []
    overlap = int(share * (tile // 3))
    output = run_blended(enlarged, low, scale=2, tile=tile, overlap=overlap, advance=told.append)
    assert (output - enlarged(low)).abs().max() <= 1e-6
    assert told == sorted(told)
    assert told[-1] == 1


def test_no_seam_is_seen_where_tiles_disagree():
    """Each tile comes out as its own mean; between pixels the step stays far below that between tiles."""
    low = torch.linspace(0, 1, 60).expand(1, 1, 9, 60)

    def mean(tile: Tensor) -> Tensor:
        return torch.full_like(enlarged(tile), tile.mean().item())

    seams = run_blended(mean, low, scale=2, tile=20, overlap=0).diff(dim=-1).abs().max()
    blended = run_blended(mean, low, scale=2, tile=20, overlap=6)
    assert seams > 0.3
    assert blended.diff(dim=-1).abs().max() < seams / 6
    assert (blended.diff(dim=-1) >= -1e-6).all()


def test_a_picture_within_one_tile_runs_whole():
    seen: list[tuple[int, ...]] = []

    def run(low: Tensor) -> Tensor:
        seen.append(tuple(low.shape))
        return enlarged(low)

    run_blended(run, torch.zeros(1, 3, 12, 7), scale=2, tile=12, overlap=4)
    assert seen == [(1, 3, 12, 7)]


def test_strips_come_as_soon_as_they_are_done():
    calls = 0

    def run(low: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return enlarged(low)

    strips = blended_strips(run, torch.rand(1, 1, 30, 25), scale=2, tile=12, overlap=3)
    first = next(strips)
    assert first.shape == (1, 1, 2 * 9, 50)
    assert calls == len(list(spans(25, 12, 3))) == 3
    assert sum(strip.shape[-2] for strip in strips) == 60 - first.shape[-2]


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (9, 4), (9, -1)])
def test_an_overlap_that_cannot_be_is_refused(tile, overlap):
    with pytest.raises(ValueError, match="cannot overlap"):
        run_blended(enlarged, torch.zeros(1, 1, 20, 20), scale=2, tile=tile, overlap=overlap)


def test_tiles_are_cut_smaller_where_memory_runs_out():
    """What looks at single pixels is the same in any tiles."""
    low, told = torch.rand(1, 3, 150, 170), []

    def run(tile):
        if tile.shape[-1] * tile.shape[-2] > 60 * 60:
            raise torch.OutOfMemoryError("out of memory")
        return tile.repeat_interleave(2, -1).repeat_interleave(2, -2)

    made = run_blended(run, low, scale=2, tile=128, overlap=32, say=told.append)
    assert torch.allclose(made, low.repeat_interleave(2, -1).repeat_interleave(2, -2), atol=1e-6)
    assert "going on with tiles of" in told[0]

    def never(tile):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(RelumeError, match="does not suffice even for tiles"):
        run_blended(never, low, scale=2, tile=128, overlap=32)
    with pytest.raises(RuntimeError, match="a fault"):
        run_blended(faulty, low, scale=2, tile=128, overlap=32)


def faulty(tile):
    raise RuntimeError("a fault")
