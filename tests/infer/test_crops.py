"""Parts of pictures: as asked for, or where there is most to see."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.core.errors import RelumeError
from relume.infer.crops import Crop, most_detailed, parse_crop


@pytest.mark.parametrize(("top", "left"), [(0, 0), (96, 40), (560, 8), (600, 200)])
def test_the_detail_is_found(top, left):
    """Also across the 512 rows that are looked at together, and in the corner."""
    pixels = torch.full((3, 640, 240), 0.5)
    pixels[:, :, 120:] = 0.9  # an edge through all of it, which is less than the noise below
    pixels[:, top : top + 40, left : left + 40] = torch.rand(3, 40, 40)
    found = most_detailed(pixels, side=48)
    assert (found.width, found.height) == (48, 48)
    assert found.left <= left <= found.left + 8
    assert found.top <= top <= found.top + 8


@settings(max_examples=80, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), side=st.integers(1, 90))
def test_the_part_lies_inside_and_is_as_large_as_may_be(height, width, side):
    pixels = torch.rand(1, height, width, generator=torch.Generator().manual_seed(height))
    found = most_detailed(pixels, side=side)
    assert found.of(pixels).shape == (1, min(side, height), min(side, width))
    assert min(found.left, found.top) >= 0


def test_crops_are_read():
    assert parse_crop("3, 4,5,6", height=10, width=8) == Crop(3, 4, 5, 6)
    pixels = torch.arange(80).reshape(1, 10, 8)
    assert Crop(3, 4, 5, 6).of(pixels)[0, 0, 0] == 4 * 8 + 3
    assert Crop(3, 4, 5, 6).of(pixels).shape == (1, 6, 5)
    assert str(Crop(3, 4, 5, 6)) == "3,4,5,6"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3,4,5", "written as x,y,w,h"),
        ("3,4,5,-6", "written as x,y,w,h"),
        ("a,4,5,6", "written as x,y,w,h"),
        ("", "written as x,y,w,h"),
        ("3,4,5,0", "empty or leaves the picture, which is 8x10"),
        ("4,4,5,6", "leaves the picture"),
        ("3,5,5,6", "leaves the picture"),
    ],
)
def test_crops_that_make_no_sense_are_refused(text, says):
    with pytest.raises(RelumeError, match=says):
        parse_crop(text, height=10, width=8)
