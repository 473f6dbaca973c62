"""Shifted windows: where pixels go, who sees whom, and attention as its equation says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.nn.swin import SwinLayer, WindowAttention, filled_to_windows, windows_of

sides = st.integers(2, 5)
counts = st.integers(1, 3)


@settings(max_examples=40, deadline=None)
@given(rows=counts, columns=counts, side=sides, shift=st.integers(0, 4))
def test_pixels_come_back_and_windows_are_what_rolling_and_cutting_gives(rows, columns, side, shift):
    shift %= side
    height, width = rows * side, columns * side
    picture = torch.rand(2, height, width, 3)
    pixels = picture.flatten(1, 2)
    windows = windows_of(height, width, side, shift=shift, like=picture)
    cut = windows.cut(pixels, side**2)
    assert torch.equal(windows.joined(cut), pixels)
    rolled = picture.roll((-shift, -shift), (1, 2))
    index = 0
    for top in range(0, height, side):
        for left in range(0, width, side):
            expected = rolled[:, top : top + side, left : left + side].flatten(1, 2)
            assert torch.equal(cut[:, index], expected)
            index += 1


def layer(*, positions=True):
    torch.manual_seed(0)
    return SwinLayer(8, 2, 4, ratio=2, positions=positions).double()


def seen_from(pixel, *, shift, masked):
    """Return which pixels of an 8 by 12 picture a layer's output at one looks at."""
    x = torch.rand(1, 96, 8, dtype=torch.float64, requires_grad=True)
    windows = windows_of(8, 12, 4, shift=shift, masked=masked, like=x)
    output = layer()(x, windows)[0, pixel[0] * 12 + pixel[1]]
    (gradient,) = torch.autograd.grad(output.sum(), x)
    found = gradient[0].abs().sum(1).unflatten(0, (8, 12)) > 1e-20
    return {(int(row), int(column)) for row, column in found.nonzero()}


def square(rows, columns):
    return {(row, column) for row in rows for column in columns}


@pytest.mark.parametrize(
    ("pixel", "shift", "masked", "expected"),
    [
        ((0, 0), 0, True, square(range(4), range(4))),
        ((5, 7), 0, True, square(range(4, 8), range(4, 8))),
        ((3, 5), 2, True, square(range(2, 6), range(2, 6))),
        ((0, 5), 2, True, square(range(2), range(2, 6))),
        ((7, 11), 2, True, square(range(6, 8), range(10, 12))),
        ((0, 0), 2, True, square(range(2), range(2))),
        ((0, 0), 2, False, square((6, 7, 0, 1), (10, 11, 0, 1))),
    ],
)
def test_a_pixel_sees_its_window_and_no_opposite_border(pixel, shift, masked, expected):
    assert seen_from(pixel, shift=shift, masked=masked) == expected


@torch.no_grad()
def test_attention_is_its_equation():
    torch.manual_seed(0)
    attention = WindowAttention(6, 3, 3).double()
    attention.bias_table.normal_()
    x = torch.randn(1, 2, 9, 6, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for window in range(2):
        q, k, v = attention.qkv(x[0, window]).chunk(3, 1)
        for head in range(3):
            own = slice(2 * head, 2 * head + 2)
            logits = q[:, own] @ k[:, own].T / 2**0.5
            for one in range(9):
                for other in range(9):
                    down, right = one // 3 - other // 3, one % 3 - other % 3
                    logits[one, other] += attention.bias_table[(down + 2) * 5 + right + 2, head]
            expected[0, window, :, own] = logits.softmax(1) @ v[:, own]
    assert torch.allclose(attention(x), attention.project(expected))


@torch.no_grad()
def test_without_positions_the_order_of_pixels_is_lost():
    x = torch.rand(1, 1, 16, 8, dtype=torch.float64)
    order = torch.randperm(16)
    for positions in (True, False):
        attention = layer(positions=positions).attention
        same = torch.allclose(attention(x)[:, :, order], attention(x[:, :, order]))
        assert same != positions


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12), side=sides)
def test_filling_mirrors_to_the_next_whole_windows(height, width, side):
    x = torch.rand(1, 2, height, width)
    filled = filled_to_windows(x, side)
    assert filled.shape[2:] == tuple(-(-length // side) * side for length in (height, width))
    assert torch.equal(filled[..., :height, :width], x)
    for row in range(filled.shape[2]):
        period = max(2 * (height - 1), 1)
        mirrored = min(row % period, period - row % period) if height > 1 else 0
        assert torch.equal(filled[:, :, row, :width], x[:, :, mirrored])
