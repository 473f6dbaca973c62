"""Means over a window, against a sum of every window by itself, and sizes that can be halved."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relume.nn.local_mean import LocalMean, window_at
from relume.nn.padding import cut, mirrored_to_multiple, zeros_to_multiple

SIDES = st.integers(1, 12)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_mean_is_over_the_window_around_it_or_the_last_whole_one(height, width, down, right):
    x = torch.randn(2, 3, height, width, dtype=torch.float64).float()
    means = LocalMean((down, right))(x).expand(-1, -1, height, width)
    high, wide = min(down, height), min(right, width)
    for row in range(height):
        top = min(max(row - (high - 1) // 2, 0), height - high)
        for column in range(width):
            left = min(max(column - (wide - 1) // 2, 0), width - wide)
            window = x[:, :, top : top + high, left : left + wide]
            assert torch.allclose(means[:, :, row, column], window.mean((2, 3)), atol=1e-5)


def test_without_a_window_and_in_one_that_holds_all_it_is_one_number_a_channel():
    x = torch.rand(1, 2, 5, 6)
    for window in (None, (5, 6), (9, 9)):
        assert torch.equal(LocalMean(window)(x), x.mean((2, 3), keepdim=True))
    assert LocalMean((4, 6))(x).shape == x.shape


def test_low_precision_sums_do_not_drown():
    x = torch.full((1, 1, 40, 3000), 0.75, dtype=torch.bfloat16)
    assert torch.equal(LocalMean((30, 384))(x), x)


@pytest.mark.parametrize(
    ("patch", "level", "expected"),
    [((256, 256), 0, (384, 384)), ((256, 256), 4, (24, 24)), ((16, 20), 1, (12, 15)), ((10, 16), 2, (4, 6))],
)
def test_windows_are_one_and_a_half_patches_at_each_size(patch, level, expected):
    # 10 is made 12 before it can be halved twice, of which a quarter is 3, and 3 · 15 // 10 = 4.
    assert window_at(patch, level=level, levels=max(level, 2)) == expected


@given(SIDES, SIDES, st.sampled_from([1, 2, 4, 8]))
def test_appended_pixels_are_zeros_or_a_mirror_and_can_be_cut_off(height, width, multiple):
    x = torch.rand(1, 2, height, width)
    zeros, mirrored = zeros_to_multiple(x, multiple), mirrored_to_multiple(x, multiple)
    for padded in (zeros, mirrored):
        assert padded.shape == zeros.shape
        assert padded.shape[2:] == tuple(-(-side // multiple) * multiple for side in (height, width))
        assert torch.equal(cut(padded, x), x)
    assert zeros.sum() == pytest.approx(x.sum().item(), rel=1e-5)
    if height > 1 and zeros.shape[2] > height:
        assert torch.equal(mirrored[:, :, height, :width], x[:, :, height - 2])
