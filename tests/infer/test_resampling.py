"""Strip by strip, a picture is resized to the values that it has when resized whole."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from relume.infer.resampling import RowResampler
from relume.nn.resize import imresize


def in_strips(image: Tensor, height: int, width: int, cuts: list[int]) -> list[Tensor]:
    channels, rows, columns = image.shape
    resampler = RowResampler(
        height_in=rows, width_in=columns, height_out=height, width_out=width, channels=channels
    )
    edges = sorted({0, rows, *(cut % rows for cut in cuts)})
    return [resampler.push(image[:, top:bottom]) for top, bottom in itertools.pairwise(edges)]


side = st.integers(1, 90)


@settings(max_examples=300, deadline=None)
@given(
    rows=side, columns=side, height=side, width=side, channels=st.sampled_from([1, 3]),
    cuts=st.lists(st.integers(0, 89), max_size=6),
)  # fmt: skip
@example(rows=1, columns=1, height=1, width=1, channels=1, cuts=[])
@example(rows=1, columns=1, height=80, width=80, channels=3, cuts=[])
@example(rows=90, columns=90, height=1, width=1, channels=3, cuts=[1, 2, 3, 40])
@example(rows=3, columns=90, height=90, width=3, channels=1, cuts=[1, 2])
def test_strips_make_the_whole(rows, columns, height, width, channels, cuts):
    image = torch.rand(channels, rows, columns, generator=torch.Generator().manual_seed(rows * 91 + columns))
    whole = imresize(image, height=height, width=width)
    made = torch.cat(in_strips(image, height, width, cuts), dim=1)
    assert made.shape == whole.shape
    assert (made - whole).abs().max() <= 1e-6


@pytest.mark.parametrize(("rows", "height"), [(2000, 500), (2000, 333), (300, 1200), (500, 500)])
def test_rows_leave_as_early_as_they_can_and_few_are_kept(rows, height):
    image = torch.rand(1, rows, 8)
    resampler = RowResampler(height_in=rows, width_in=8, height_out=height, width_out=5, channels=1)
    left = 0
    most = 0
    for row in range(rows):
        left += resampler.push(image[:, row : row + 1]).shape[1]
        most = max(most, resampler._open.shape[1])
        # Four pixels of the coarser grid, and the half by which grids are shifted.
        waiting = (row + 1) * height / rows - left
        assert waiting <= 2.5 * max(1, height / rows)
    assert left == height
    assert most <= 5 * max(1, height / rows)


def test_a_large_picture_in_uneven_strips():
    image = torch.rand(3, 700, 1100)
    made = torch.cat(in_strips(image, 175, 275, [64, 65, 300, 555]), dim=1)
    assert (made - imresize(image, height=175, width=275)).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("shape", "says"),
    [((3, 2, 9), "expected rows of 3×any×8"), ((1, 2, 8), "expected rows of"), ((3, 6, 8), "too many")],
)
def test_rows_that_do_not_fit_are_refused(shape, says):
    resampler = RowResampler(height_in=5, width_in=8, height_out=2, width_out=4, channels=3)
    with pytest.raises(ValueError, match=says):
        resampler.push(torch.zeros(shape))


def test_an_empty_picture_is_refused():
    with pytest.raises(ValueError, match="empty"):
        RowResampler(height_in=5, width_in=0, height_out=2, width_out=4, channels=3)
