"""Covers hold every chosen block once, and cost no more than the plain ways."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from relume.nn.windows import cover


@st.composite
def masks(draw):
    rows, columns = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    return torch.rand(rows, columns, generator=generator) < share


@given(masks(), st.floats(0, 2), st.integers(1, 25))
def test_every_chosen_block_is_in_one_window(chosen, context, largest):
    times = torch.zeros(chosen.shape, dtype=torch.int64)
    windows = cover(chosen, context=context, largest=largest)
    for top, left, bottom, right in windows:
        assert 0 < bottom - top <= largest
        assert 0 < right - left <= largest
        times[top:bottom, left:right] += 1
    assert times.max() <= 1
    assert (times[chosen] == 1).all()
    cost = sum((b - t + 2 * context) * (r - left + 2 * context) for t, left, b, r in windows)
    if largest >= max(chosen.shape):
        one = (chosen.shape[0] + 2 * context) * (chosen.shape[1] + 2 * context)
        assert cost <= one * (1 + 1e-9)
    assert cost <= int(chosen.sum()) * (1 + 2 * context) ** 2 * (1 + 1e-9)


def test_all_chosen_is_one_window_and_two_far_corners_are_two():
    assert cover(torch.ones(9, 7, dtype=torch.bool), context=0.5, largest=9) == [(0, 0, 9, 7)]
    corners = torch.zeros(9, 9, dtype=torch.bool)
    corners[0, 0] = corners[8, 8] = True
    assert sorted(cover(corners, context=0.5, largest=9)) == [(0, 0, 1, 1), (8, 8, 9, 9)]
