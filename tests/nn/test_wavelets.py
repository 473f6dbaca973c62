"""Haar's details: what a cell gives, what is kept, and odd sides."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relume.nn.wavelets import haar_details


@pytest.mark.parametrize(
    ("row", "column", "weights"),
    [(0, 0, (1, 1, 1)), (0, 1, (1, -1, -1)), (1, 0, (-1, 1, -1)), (1, 1, (-1, -1, 1))],
)
def test_a_pixel_gives_half_of_itself_to_each_band(row, column, weights):
    x = torch.zeros(1, 2, 2, 2)
    x[0, 1, row, column] = 1
    bands = haar_details(x)
    assert bands[0, :, 0, 0].tolist() == [value / 2 for weight in weights for value in (0, weight)]


@given(st.integers(1, 6), st.integers(1, 6))
def test_with_the_smooth_part_nothing_is_lost(rows, columns):
    x = torch.rand(2, 3, 2 * rows, 2 * columns, dtype=torch.float64)
    details = haar_details(x)
    smooth = torch.nn.functional.avg_pool2d(x, 2) * 2
    assert details.shape == (2, 9, rows, columns)
    assert details.square().sum() + smooth.square().sum() == pytest.approx(x.square().sum())


def test_odd_sides_are_mirrored():
    x = torch.rand(1, 1, 3, 5)
    rows, columns = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 2, 3, 4, 3])
    assert torch.equal(haar_details(x), haar_details(x[:, :, rows][..., columns]))
    with pytest.raises(ValueError, match="sides of 2 pixels, got 1×4"):
        haar_details(torch.rand(1, 1, 4, 1))
