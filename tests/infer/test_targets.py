"""Sizes asked for, and the models that reach them."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relume.core.errors import RelumeError
from relume.infer.targets import LARGEST_FACTOR, LARGEST_SIDE, Target, box, steps, work

side = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ({"scale": 4}, (400, 600)),
        ({"scale": 2.5}, (250, 375)),
        ({"scale": 0.5}, (50, 75)),
        ({"scale": 0.001}, (1, 1)),
        ({"width": 301}, (201, 301)),  # 200.67
        ({"height": 301}, (301, 452)),  # 451.5 goes up
        ({"width": 70, "height": 90}, (90, 70)),
        ({"megapixels": 1.5}, (1000, 1500)),
        ({"megapixels": 0.015}, (100, 150)),
        ({"fit": (1920, 1080)}, (1080, 1620)),
        ({"fit": (150, 4000)}, (100, 150)),
        ({"fit": (151, 4000)}, (101, 151)),  # 100.67
        ({"fit": (3, 9)}, (2, 3)),
    ],
)
def test_sizes_of_a_picture_150_wide_and_100_high(wish, size):
    assert Target(**wish).size(100, 150) == size


def test_numbers_are_taken_as_written():
    """In binary 1.15 × 10 falls short of 11.5, and 4.35 × 100 of 435."""
    assert Target(scale=1.15).size(10, 10) == (12, 12)
    assert Target(scale=4.35).size(100, 100) == (435, 435)


@given(height=side, width=side, box_height=side, box_width=side)
def test_a_fit_is_the_largest_inside(height, width, box_height, box_width):
    target = Target(fit=(box_width, box_height))
    try:
        rows, columns = target.size(height, width)
    except RelumeError:
        assert min(box_height / height, box_width / width) > 60
        return
    assert rows <= box_height
    assert columns <= box_width
    assert rows == box_height or columns == box_width
    assert abs(rows - columns * height / width) <= 0.5 + 0.5 * height / width or 1 in (rows, columns)


@given(height=side, width=side, millions=st.floats(0.01, 5))
def test_megapixels_are_met_as_nearly_as_the_sides_allow(height, width, millions):
    try:
        rows, columns = Target(megapixels=millions).size(height, width)
    except RelumeError:
        assert math.sqrt(millions * 1e6 / (height * width)) > 60
        return
    if 1 not in (rows, columns):
        assert (rows - 0.51) * (columns - 0.51) <= millions * 1e6 <= (rows + 0.51) * (columns + 0.51)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({}, "none was asked for"),
        ({"scale": 2.0, "width": 9}, "not scale and width at once"),
        ({"width": 9, "height": 9, "fit": (1, 1)}, "at once"),
        ({"scale": 0.0}, "scale 0 makes no picture"),
        ({"scale": -1.5}, "scale -1.5 makes no picture"),
        ({"scale": math.inf}, "scale inf"),
        ({"scale": math.nan}, "scale nan"),
        ({"width": 0}, "width 0 makes"),
        ({"width": 5, "height": -1}, "height -1 makes"),
        ({"megapixels": 0.0}, "megapixels 0"),
        ({"fit": (0, 10)}, "fit 0x10 makes"),
    ],
)
def test_wishes_that_make_no_picture_are_refused(wish, says):
    with pytest.raises(RelumeError, match=says) as caught:
        Target(**wish)
    assert "\n" not in str(caught.value)


def test_limits_are_stated():
    assert Target(scale=LARGEST_FACTOR).size(3, 4) == (192, 256)
    with pytest.raises(RelumeError, match="4x3 to 1000x750 is 250 times larger, more than the limit of 64"):
        Target(width=1000).size(3, 4)
    with pytest.raises(RelumeError, match="4x3 to 300x3 is 75 times"):
        Target(width=300, height=3).size(3, 4)
    with pytest.raises(RelumeError, match=f"limit of {LARGEST_SIDE} pixels a side"):
        Target(scale=64).size(10, LARGEST_SIDE // 64 + 1)


def test_a_stretch_is_told_and_a_rounding_is_not():
    assert Target(width=300, height=200).note(100, 150) is None
    assert Target(width=301, height=200).note(100, 150) is None
    assert Target(scale=3).note(100, 150) is None
    assert Target(width=300, height=100).note(100, 150) == (
        "The picture was stretched: 300x100 is 2.00 times wider in shape than 150x100."
    )
    assert "2.00 times taller" in (Target(width=300, height=400).note(100, 150) or "")


def test_boxes_are_read():
    assert box("1920x1080") == box("1920X1080") == box(" 1920 × 1080 ") == (1920, 1080)
    for text in ("1920", "x", "1920x", "axb", "1920x-3", "1.5x2", "1x2x3"):
        with pytest.raises(RelumeError, match="written like 1920x1080"):
            box(text)


@pytest.mark.parametrize(
    ("factor", "scales", "chain"),
    [
        (0.5, (2, 3, 4), ()),
        (1, (2, 3, 4), ()),
        (1.01, (2, 3, 4), (2,)),
        (2.5, (2, 3, 4), (3,)),
        (4, (4, 2, 3), (4,)),
        (6, (2, 3, 4), (2, 3)),
        (8, (2, 3, 4), (2, 4)),
        (10, (2, 3, 4), (3, 4)),
        (16, (2, 3, 4), (4, 4)),
        (17, (2, 3, 4), (2, 3, 3)),
        (16, (2, 4, 8), (2, 8)),  # work 5, (4, 4) takes 17
        (64, (2, 3, 4), (4, 4, 4)),
        (72, (2, 3, 6, 8), (3, 3, 8)),  # work 91, (2, 6, 6) takes 149
        (64, (2,), (2,) * 6),
        (3, (1, 4), (4,)),
        (1, (1,), ()),
    ],
)
def test_chains(factor, scales, chain):
    assert steps((100, 200), (round(100 * factor), round(200 * factor)), scales) == chain


def test_the_side_that_grows_more_decides():
    assert steps((100, 100), (90, 300), (2, 3, 4)) == (3,)
    assert steps((100, 100), (301, 90), (2, 3, 4)) == (4,)


@given(
    before=st.integers(1, 300),
    after=st.integers(1, 19200),
    scales=st.sets(st.integers(2, 8), min_size=1, max_size=4),
)
def test_no_chain_is_better(before, after, scales):
    factor = Fraction(after, before)
    if factor > LARGEST_FACTOR:
        return
    chain = steps((before, before), (after, after), scales)
    assert math.prod(chain) >= factor or chain == ()
    assert set(chain) <= scales
    for other in itertools.product(sorted(scales), repeat=len(chain)):
        if math.prod(other) >= factor:
            assert (math.prod(chain), work(chain)) <= (math.prod(other), work(other))
    if chain:
        assert max(scales) ** (len(chain) - 1) < factor


@given(height=side, width=side, wish=st.sampled_from([{"scale": 3}, {"scale": 2}, {"width": 7000}]))
def test_a_whole_scale_takes_one_model_of_that_scale(height, width, wish):
    if "width" in wish:
        wish = {"width": 2 * width}  # heights are rounded, but never past twice
    size = Target(**wish).size(height, width)
    assert steps((height, width), size, (2, 3, 4)) == (wish.get("scale", 2),)


def test_a_model_that_does_not_enlarge_reaches_nothing_larger():
    with pytest.raises(RelumeError, match="does not enlarge"):
        steps((10, 10), (20, 20), (1,))
