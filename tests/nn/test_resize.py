"""MATLAB's bicubic: exact on Set5, equal to a slow transcription, and to numbers fixed here."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from relume.nn.resize import imresize, imresize_uint8


def _kernel(x):
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x <= 2:
        return Fraction(-1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def _matrix(n, m, antialias):
    """MATLAB's `contributions`, transcribed in exact rationals with MATLAB's 1-based positions."""
    scale = Fraction(m, n)
    stretch = min(scale, Fraction(1)) if antialias else Fraction(1)
    matrix = np.zeros((m, n))
    for j in range(1, m + 1):
        u = j / scale + (1 - 1 / scale) / 2
        left = floor(u - 2 / stretch)
        taps = {i: stretch * _kernel(stretch * (u - i)) for i in range(left, left + ceil(4 / stretch) + 2)}
        total = sum(taps.values())
        aux = [*range(1, n + 1), *range(n, 0, -1)]
        for i, weight in taps.items():
            matrix[j - 1, aux[(i - 1) % (2 * n)] - 1] += float(weight / total)
    return matrix


def _pattern(rows, columns):
    i, j = torch.arange(rows)[:, None], torch.arange(columns)
    return ((i * 67 + j * 41 + i * j * 29) % 256).to(torch.uint8)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_set5_is_reproduced_to_the_last_pixel(shared, scale):
    for path in sorted((shared / "data/sr/Set5/HR").glob("*.png")):
        high = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        low_path = path.parents[1] / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"
        low = torch.from_numpy(np.array(Image.open(low_path))).permute(2, 0, 1)
        height, width = (side // scale for side in high.shape[-2:])
        made = imresize_uint8(high[:, : height * scale, : width * scale], height=height, width=width)
        assert torch.equal(made, low), path.name


# The numbers that the code gave when it reproduced Set5 to the last pixel; every picture below tells
# rounding between the passes from rounding once.
@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        pytest.param(
            6,
            6,
            [
                [65, 107, 161, 139, 104, 166],
                [156, 133, 109, 141, 117, 131],
                [75, 136, 138, 136, 140, 136],
                [144, 113, 176, 136, 95, 155],
                [94, 137, 83, 134, 185, 135],
                [171, 111, 129, 134, 138, 153],
            ],
            id="x2",
        ),
        pytest.param(
            4,
            4,
            [[100, 136, 126, 142], [117, 136, 134, 132], [117, 137, 132, 142], [140, 112, 141, 149]],
            id="x3",
        ),
        pytest.param(3, 3, [[110, 137, 134], [120, 139, 134], [131, 124, 149]], id="x4"),
        pytest.param(
            4, 6, [[95, 114, 144, 140, 106, 157], [109, 135, 132, 137, 129, 134]], id="rows-shrink-more"
        ),
        pytest.param(6, 4, [[75, 146, 124, 150], [151, 117, 131, 125]], id="columns-shrink-more"),
    ],
)
def test_uint8_numbers_stay(height, width, expected):
    made = imresize_uint8(_pattern(12, 12), height=height, width=width)
    assert made[: len(expected)].tolist() == expected
    once = imresize(_pattern(12, 12).double(), height=height, width=width)
    assert not torch.equal(made, once.add(0.5).floor().clamp(0, 255).to(torch.uint8))


def test_uint8_overshoot_is_clamped_and_halves_go_up():
    edge = torch.tensor([[0, 0, 255, 255]], dtype=torch.uint8)
    wide = imresize_uint8(edge, height=1, width=8)
    assert wide.tolist() == [[0, 0, 0, 52, 203, 255, 255, 255]]
    assert imresize(edge.double(), height=1, width=8).max() > 255
    # The mean of 2 and 3 is exactly half-way, and 2 is the even neighbour.
    assert imresize_uint8(torch.tensor([[2, 3]], dtype=torch.uint8), height=1, width=1).item() == 3


def test_smaller_scale_goes_first_and_rows_on_equal_scales():
    picture = _pattern(24, 24)
    turned = picture.T.contiguous()
    assert torch.equal(
        imresize_uint8(picture, height=12, width=6), imresize_uint8(turned, height=6, width=12).T
    )
    by_rows = imresize_uint8(picture, height=12, width=12)
    rows_first = imresize_uint8(imresize_uint8(picture, height=12, width=24), height=12, width=12)
    assert torch.equal(by_rows, rows_first)
    assert not torch.equal(by_rows, imresize_uint8(turned, height=12, width=12).T)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    antialias=st.booleans(),
)
def test_equals_a_transcription_of_matlab(rows, columns, height, width, antialias):
    picture = torch.rand(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = _matrix(rows, height, antialias) @ picture.numpy() @ _matrix(columns, width, antialias).T
    actual = imresize(picture, height=height, width=width, antialias=antialias)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(300, 75), (200, 100), (70, 210), (257, 131), (131, 257)])
def test_long_sides_cut_into_blocks_equal_the_whole_matrix(n, m):
    line = torch.rand(1, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = line.numpy() @ _matrix(n, m, True).T
    np.testing.assert_allclose(imresize(line, height=1, width=m).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(imresize(line.T, height=m, width=1).numpy(), expected.T, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(16, 20), (96, 120)])
def test_agrees_with_torch_inside(height, width):
    picture = torch.rand(2, 3, 48, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = imresize(picture, height=height, width=width)
    theirs = F.interpolate(picture, size=(height, width), mode="bicubic", antialias=True)
    torch.testing.assert_close(ours[..., 5:-5, 5:-5], theirs[..., 5:-5, 5:-5], atol=1e-9, rtol=0)


def test_leading_dimensions_types_and_constants():
    batch = torch.rand(2, 5, 3, 12, 16)
    out = imresize(batch, height=3, width=40)
    assert out.shape == (2, 5, 3, 3, 40)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[1, 4, 2], imresize(batch[1, 4, 2], height=3, width=40))
    flat = torch.full((3, 10, 10), 0.25, dtype=torch.float64)
    torch.testing.assert_close(imresize(flat, height=7, width=23), flat.new_full((3, 7, 23), 0.25))
    same = _pattern(5, 7)
    assert torch.equal(imresize_uint8(same, height=5, width=7), same)


def test_gradients_flow_even_after_inference_mode_filled_the_cache():
    picture = torch.rand(1, 9, 11, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        imresize(picture, height=4, width=17)
    assert torch.autograd.gradcheck(lambda x: imresize(x, height=4, width=17), picture)


def test_wrong_types_and_empty_sides_are_refused():
    with pytest.raises(TypeError, match="imresize_uint8"):
        imresize(_pattern(4, 4), height=2, width=2)
    with pytest.raises(TypeError, match="uint8"):
        imresize_uint8(torch.rand(4, 4), height=2, width=2)
    with pytest.raises(ValueError, match="4×4 to 0×2"):
        imresize(torch.rand(4, 4), height=0, width=2)
    with pytest.raises(ValueError, match="two dimensions"):
        imresize(torch.rand(4), height=2, width=2)
