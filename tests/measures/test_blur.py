"""Blur against the paper's sums written out, and on photos with known blur."""

import pytest
import torch
from damaging import BUNDLED, SHARED, blurred, photo, shrunk
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.core.errors import PictureError
from relume.measures.blur import blur
from relume.measures.gray import gray_levels


def _by_the_book(rows):
    """Crete et al. 2007, eq. 1-5, down the columns of a list of rows."""
    there = lost = 0.0
    for i in range(5, len(rows) - 4):
        for j in range(len(rows[0])):
            mean, mean_above = (sum(rows[k + d][j] for d in range(-4, 5)) / 9 for k in (i, i - 1))
            detail = abs(rows[i][j] - rows[i - 1][j])
            there += detail
            lost += max(0.0, detail - abs(mean - mean_above))
    return (there - lost) / there


def test_equals_the_equations():
    gray = torch.rand(14, 17, generator=torch.Generator().manual_seed(1)).double() * 255
    expected = max(_by_the_book(gray.tolist()), _by_the_book(gray.T.tolist()))
    assert blur(gray) == pytest.approx(expected, abs=1e-12)


def test_more_blur_is_more():
    picture = photo(BUNDLED)
    for damage, strengths in ((blurred, (0.5, 1, 2, 4, 8)), (shrunk, (2, 3, 4, 6))):
        values = [blur(gray_levels(x)) for x in (picture, *(damage(picture, each) for each in strengths))]
        assert values == sorted(values)
        assert values[-1] - values[0] > 0.25


def test_more_blur_is_more_on_several_photos(shared):
    for name in SHARED:
        picture = photo(shared / "data" / name)
        values = [
            blur(gray_levels(x)) for x in (picture, *(blurred(picture, each) for each in (0.5, 1, 2, 4)))
        ]
        assert values == sorted(values)


def test_extremes():
    checks = (torch.arange(40)[:, None] + torch.arange(30)) % 2 * 255.0
    assert blur(checks) == pytest.approx(1 / 9, abs=1e-6)
    ramp = torch.arange(64.0).expand(40, 64)  # nothing varies down the columns
    assert blur(ramp) == 1


@given(st.integers(0, 1000), st.floats(0.1, 20))
@settings(max_examples=25, deadline=None)
def test_within_its_range_and_blind_to_contrast_and_turns(seed, contrast):
    gray = torch.rand(13, 21, generator=torch.Generator().manual_seed(seed)).double()
    value = blur(gray)
    assert 0 <= value <= 1
    assert blur(gray * contrast + 5) == pytest.approx(value, abs=1e-9)
    assert blur(gray.T) == value
    assert blur(gray.flip(0)) == pytest.approx(value, abs=1e-12)


def test_refusals():
    with pytest.raises(PictureError, match="10x10 pixels and this picture has 40x9"):
        blur(torch.rand(9, 40))
    with pytest.raises(PictureError, match="flat"):
        blur(torch.full((30, 30), 7.0))
    with pytest.raises(ValueError, match="H × W"):
        blur(torch.rand(3, 30, 30))
