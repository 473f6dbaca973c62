"""Back-projection strip by strip: what comes out gives back what went in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relume.infer.faithful import Corrected, chebyshev_steps
from relume.nn.resize import imresize


def noise(height: int, width: int, *, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def correct(low: Tensor, output: Tensor, rounds: int, strips: list[int] | None = None) -> Tensor:
    height, width = output.shape[1:]
    corrected = Corrected(
        lambda top, bottom: low[:, top:bottom], low.shape, height=height, width=width, rounds=rounds
    )
    return torch.cat([corrected.push(strip) for strip in output.split(strips or height, 1)], 1)


def agreement(low: Tensor, output: Tensor) -> float:
    shrunk = imresize(output, height=low.shape[1], width=low.shape[2])
    return -10 * (shrunk - low).square().mean().log10().item()


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_steps_fit_the_eigenvalues_of_shrinking_what_was_enlarged(scale):
    """The range that the steps are made for is that of every scale; both sides together, so squared."""
    unit = torch.eye(200, dtype=torch.float64)[:, :, None]
    enlarged = imresize(unit, height=200 * scale, width=1)
    shrunk = imresize(enlarged, height=200, width=1)[..., 0]
    values = torch.linalg.eigvals(shrunk).real.square()
    assert values.min() >= 0.223
    assert values.max() <= 1 + 1e-9
    left = torch.ones(())
    for step in chebyshev_steps(3):
        left = left * (1 - step * values)
    assert left.abs().max() <= 0.092  # with three steps of 1: 0.46
    if scale == 2:
        assert values.min() <= 0.224


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 20), width=st.integers(1, 20), rounds=st.integers(1, 3), strip=st.integers(1, 70),
    scale=st.floats(1, 4.5),
)  # fmt: skip
def test_strips_are_the_whole(height, width, rounds, strip, scale):
    low = noise(height, width)
    rows, columns = round(height * scale), round(width * scale)
    output = noise(rows, columns, seed=1)
    expected = output
    for step in chebyshev_steps(rounds):
        missing = low - imresize(expected, height=height, width=width)
        expected = (expected + step * imresize(missing, height=rows, width=columns)).clamp(0, 1)
    strips = [min(strip, rows - top) for top in range(0, rows, strip)]
    assert (correct(low, output, rounds, strips) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("scale", [1.1, 1.5, 2, 2.5, 3.3, 4])
def test_the_input_comes_back(scale):
    """Noise so weak can be met without passing black or white."""
    low = noise(20, 31) * 0.2 + 0.4
    output = noise(round(20 * scale), round(31 * scale), seed=1)
    figures = [agreement(low, output)]
    for rounds in (1, 3, 6, 12):
        made = correct(low, output, rounds)
        assert 0 <= made.min() <= made.max() <= 1
        figures.append(agreement(low, made))
    assert figures == sorted(figures)
    assert figures[0] < 25
    assert figures[-1] > (60 if scale >= 1.5 else 50)


def test_a_picture_that_agrees_stays_as_it_is():
    high = imresize(noise(9, 7), height=18, width=14).clamp(0, 1)
    low = imresize(high, height=9, width=7)
    assert torch.allclose(correct(low, high, 3), high, atol=1e-6)


def test_one_pixel_can_be_corrected():
    low = torch.full((3, 1, 1), 0.3)
    output = correct(low, noise(3, 3), 20)
    assert imresize(output, height=1, width=1)[0].item() == pytest.approx(0.3, abs=1e-4)


def test_no_rounds_correct_nothing():
    with pytest.raises(ValueError, match="correct nothing"):
        correct(noise(2, 2), noise(4, 4), 0)
