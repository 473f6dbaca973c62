"""Windows, shifted or overlapping: where pixels go, who sees whom, and attention as its equations say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.nn.overlapping import OverlappingAttention
from relume.nn.swin import SwinLayer, WindowAttention, attend, filled_to_windows, windows_of

sides = st.integers(2, 5)
counts = st.integers(1, 3)


def rolled_and_cut(picture, side, shift):
    """Return the windows of `B H W C` by their row and column, as pixels `B N C`."""
    rolled = picture.roll((-shift[0], -shift[1]), (1, 2))
    rows, columns = picture.shape[1] // side[0], picture.shape[2] // side[1]
    return {
        (row, column): rolled[
            :, row * side[0] : (row + 1) * side[0], column * side[1] : (column + 1) * side[1]
        ].flatten(1, 2)
        for row in range(rows)
        for column in range(columns)
    }


@settings(max_examples=40, deadline=None)
@given(
    rows=counts, columns=counts, side=st.tuples(sides, sides), down=st.integers(0, 4), right=st.integers(0, 4)
)
def test_pixels_come_back_and_windows_are_what_rolling_and_cutting_gives(rows, columns, side, down, right):
    shift = (down % side[0], right % side[1])
    picture = torch.rand(2, rows * side[0], columns * side[1], 3)
    pixels = picture.flatten(1, 2)
    expected = rolled_and_cut(picture, side, shift)
    for masked in (True, False):
        windows = windows_of(*picture.shape[1:3], side, shift=shift, masked=masked, like=picture)
        cut = windows.cut(pixels)
        assert torch.equal(windows.joined(cut), pixels)
        order = sorted(expected)
        if masked and any(shift):  # those with one mask lie together
            order.sort(key=lambda at: (at[0] == rows - 1, at[1] == columns - 1))
        assert torch.equal(cut, torch.stack([expected[at] for at in order], 1))


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    side=st.sampled_from([(2, 4), (3, 3), (6, 2)]),
    shifted=st.booleans(),
)
def test_windows_beyond_the_picture_hold_zeros(height, width, side, shifted):
    shift = (side[0] // 2, side[1] // 2) if shifted else 0
    picture = torch.rand(1, height, width, 2) + 1
    windows = windows_of(height, width, side, shift=shift, masked=False, filled_to=max(side), like=picture)
    filled = torch.nn.functional.pad(picture, (0, 0, 0, -width % max(side), 0, -height % max(side)))
    cut = windows.cut(picture.flatten(1, 2))
    expected = rolled_and_cut(filled, side, shift or (0, 0))
    assert torch.equal(cut, torch.stack([expected[at] for at in sorted(expected)], 1))
    assert torch.equal(windows.joined(cut), picture.flatten(1, 2))


def test_overlapping_windows_hold_a_frame_and_zeros_outside():
    picture = torch.rand(1, 2, 8, 12)
    windows = windows_of(8, 12, 4, overlap=1, like=picture)
    cut = windows.cut(picture.flatten(2).transpose(1, 2))
    unfolded = torch.nn.functional.unfold(picture, 6, stride=4, padding=1)  # B C·M n
    assert torch.equal(cut, unfolded.unflatten(1, (2, 36)).permute(0, 3, 2, 1))
    assert torch.equal(windows.joined(cut), picture.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shift", [0, 2])
@torch.no_grad()
def test_fused_attention_is_the_plain_formula(shift, biased):
    windows = windows_of(12, 8, 4, shift=shift, like=torch.empty(0, dtype=torch.float64))
    query, key, value = torch.randn(3, 2, 6, 3, 16, 5, dtype=torch.float64)
    bias = torch.randn(3, 16, 16, dtype=torch.float64)
    logits = query @ key.transpose(-2, -1) / 5**0.5 + (bias if biased else 0)
    if shift:
        assert windows.counts == (2, 2, 1, 1)
        logits = logits + windows.mask[[0, 0, 1, 1, 2, 3]]
    found = attend(query, key, value, bias=bias if biased else None, windows=windows)
    assert torch.allclose(found, logits.softmax(-1) @ value)


def test_a_program_for_any_size_has_the_same_masks():
    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer()

        def forward(self, x):
            height, width = x.shape[1:3]
            windows = windows_of(height, width, 4, shift=2, like=x)
            return self.layer(x.flatten(1, 2), windows)

    shifted = Shifted()
    sizes = {1: 4 * torch.export.Dim("rows", max=64), 2: 4 * torch.export.Dim("columns", max=64)}
    program = torch.export.export(
        shifted, (torch.rand(1, 12, 8, 8, dtype=torch.float64),), dynamic_shapes=(sizes,)
    )
    x = torch.rand(1, 8, 16, 8, dtype=torch.float64)
    assert torch.allclose(program.module()(x), shifted(x))


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
def test_overlapping_attention_is_its_equation():
    torch.manual_seed(0)
    attention = OverlappingAttention(4, 2, 2, overlap=1).double()
    attention.bias_table.normal_()
    x = torch.randn(1, 4, 6, 4, dtype=torch.float64)  # B H W C
    own = windows_of(4, 6, 2, like=x)
    wider = windows_of(4, 6, 2, overlap=1, like=x)
    q, k, v = attention.qkv(x[0]).chunk(3, -1)
    expected = torch.zeros(4, 6, 4, dtype=torch.float64)
    for row in range(4):
        for column in range(6):
            top, left = row // 2 * 2 - 1, column // 2 * 2 - 1
            for head in range(2):
                part = slice(2 * head, 2 * head + 2)
                logits, values = [], []
                for other in range(16):
                    at, beside = top + other // 4, left + other % 4
                    inside = 0 <= at < 4 and 0 <= beside < 6
                    place = (at - row + 2) * 5 + beside - column + 2
                    like = (
                        q[row, column, part] @ k[at, beside, part] / 2**0.5 if inside else torch.tensor(0.0)
                    )
                    logits.append(like + attention.bias_table[place, head])
                    values.append(v[at, beside, part] if inside else torch.zeros(2, dtype=torch.float64))
                expected[row, column, part] = torch.stack(logits).softmax(0) @ torch.stack(values)
    found = attention(x.flatten(1, 2), own, wider).unflatten(1, (4, 6))
    assert torch.allclose(found, attention.project(expected)[None])


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
