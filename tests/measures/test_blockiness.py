"""Blockiness on photos compressed by real JPEG, whole and cropped."""

import pytest
import torch
from damaging import BUNDLED, SHARED, blurred, compressed, noisy, photo, shrunk
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.core.errors import PictureError
from relume.measures.blockiness import blockiness
from relume.measures.gray import gray_levels


def strength(x):
    return blockiness(gray_levels(x)).strength


def test_harder_compression_is_more():
    picture = photo(BUNDLED)
    values = [strength(compressed(picture, quality)) for quality in (90, 75, 50, 30, 10)]
    assert values == sorted(values)
    assert strength(picture) < 1.1 < values[1]
    assert values[-1] > 3


def test_harder_compression_is_more_on_several_photos(shared):
    for name in SHARED:
        picture = photo(shared / "data" / name)
        values = [strength(compressed(picture, quality)) for quality in (75, 50, 30, 10)]
        assert values == sorted(values)
        assert strength(picture) < 1.1 < values[0]


@pytest.mark.parametrize("damage", [(blurred, 2), (noisy, 15), (shrunk, 2), (shrunk, 3), (shrunk, 4)])
def test_other_damage_is_no_grid(damage):
    change, by = damage
    assert strength(change(photo(BUNDLED), by)) < 1.1


@given(st.integers(0, 15), st.integers(0, 15))
@settings(max_examples=12, deadline=None)
def test_the_grid_is_found_wherever_the_picture_was_cut(left, top):
    picture = compressed(photo(BUNDLED), 40)
    whole = blockiness(gray_levels(picture))
    assert whole.offset == (0, 0)
    cut = blockiness(gray_levels(picture[:, top:, left:]))
    assert cut.offset == (-left % 8, -top % 8)
    assert cut.strength == pytest.approx(whole.strength, rel=0.05)


def test_a_drawn_grid():
    gray = torch.rand(80, 96, generator=torch.Generator().manual_seed(0)).double()
    gray = gray + (torch.arange(96) + 3) // 8 % 2 * 40
    found = blockiness(gray)
    assert found.offset[0] == 5
    assert found.strength > 4


def test_flat_pictures_have_none_and_small_ones_are_refused():
    assert blockiness(torch.full((40, 40), 7.0)).strength == 1
    with pytest.raises(PictureError, match="32x32 pixels and this picture has 50x31"):
        blockiness(torch.rand(31, 50))
    with pytest.raises(ValueError, match="H × W"):
        blockiness(torch.rand(1, 50, 50))
