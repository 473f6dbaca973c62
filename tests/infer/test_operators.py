"""Operators on operators: what they compute, and that their halos let them be cut into tiles."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from relume.core.errors import RelumeError
from relume.infer.ensemble import Ensemble
from relume.infer.faithful import Faithful, chebyshev_steps
from relume.infer.operators import Chain, Operator
from relume.infer.tiling import run_tiled
from relume.measures.psnr import psnr
from relume.nn.resize import imresize


@dataclass(frozen=True)
class Model:
    """Two 3×3 convolutions, of random weights and zero padding, then a pixel shuffle.

    Gives what inference mode gives, as a loaded model does.
    """

    scale: int
    network: nn.Module
    channels: int = 1
    halo: int | None = 2

    def __call__(self, low: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.network(low)


def model(scale: int, *, channels: int = 1) -> Model:
    torch.manual_seed(scale)
    layers = [
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(4, channels * scale**2, 3, padding=1),
    ]
    network = nn.Sequential(*layers, nn.PixelShuffle(scale)).requires_grad_(False)
    with torch.no_grad():
        layers[-1].bias += 0.4
    return Model(scale, network, channels)


def unbounded(scale: int) -> Model:
    return Model(scale, nn.Upsample(scale_factor=scale), halo=None)


def picture(height: int, width: int, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(height * 101 + width)
    return torch.rand(1, channels, height, width, generator=generator)


STACKS = {
    "ensemble": (Ensemble(model(2)), 2),
    "chain": (Chain(model(2), model(3)), 3),
    "chain of halos that do not divide": (Chain(model(3), model(2)), 3),
    "faithful": (Faithful(model(2)), 12),
    "faithful x3, one round": (Faithful(model(3), rounds=1), 6),
    "faithful x4": (Faithful(model(4), rounds=2), 9),
    "all": (Ensemble(Faithful(Chain(model(2), model(2)), rounds=1)), 7),
}
every_stack = pytest.mark.parametrize(("operator", "halo"), STACKS.values(), ids=STACKS.keys())


@every_stack
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 34), width=st.integers(1, 34), tile=st.integers(1, 20))
def test_tiled_is_whole(operator: Operator, halo: int, height: int, width: int, tile: int):
    low = picture(height, width)
    whole = operator(low)
    assert operator.halo == halo
    assert whole.shape == (1, 1, height * operator.scale, width * operator.scale)
    tiled = run_tiled(operator, low, scale=operator.scale, tile=tile, halo=halo)
    assert (tiled - whole).abs().max() <= 1e-5


@pytest.mark.parametrize(
    "operator",
    [
        Ensemble(unbounded(2)),
        Chain(unbounded(2), model(2)),
        Chain(model(2), unbounded(2)),
        Faithful(unbounded(2)),
    ],
)
def test_what_holds_an_unbounded_operator_is_unbounded(operator):
    assert operator.halo is None
    assert operator(picture(3, 5)).shape == (1, 1, 3 * operator.scale, 5 * operator.scale)


def test_the_ensemble_is_the_mean_over_the_eight_symmetries_of_the_square():
    operator = model(3, channels=3)
    low = picture(5, 8, channels=3)
    by_turning = [
        torch.rot90(operator(torch.rot90(mirrored, turns, (-2, -1))), -turns, (-2, -1)).flip(back)
        for back in ([], [-1])
        for mirrored in [low.flip(back)]
        for turns in range(4)
    ]
    assert torch.allclose(Ensemble(operator)(low), torch.stack(by_turning).mean(0), atol=1e-6)


def test_the_ensemble_turns_with_the_picture():
    """What a plain model does not."""
    low = picture(6, 9)
    plain = model(2)
    assert not torch.allclose(plain(low.mT).mT, plain(low), atol=1e-3)
    assert torch.allclose(Ensemble(plain)(low.mT).mT, Ensemble(plain)(low), atol=1e-6)


def test_a_chain_hands_on_a_picture():
    """The first model's overshoot is clamped, and the scales multiply in this order."""
    first, second = model(2), model(3)
    low = 20 * picture(4, 5) - 5
    assert first(low).max() > 1
    chain = Chain(first, second)
    assert chain.scale == 6
    assert torch.equal(chain(low), second(first(low).clamp(0, 1)))


def test_models_that_differ_in_channels_make_no_chain():
    with pytest.raises(ValueError, match="1 channels cannot be handed on to a model of 3"):
        Chain(model(2), model(2, channels=3))


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


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_faithful_gives_the_input_back(scale):
    """A random network's output is far off; noise so weak can be met without passing black or white."""
    operator = model(scale)
    low = picture(20, 31) * 0.2 + 0.4

    def agreement(output: Tensor) -> float:
        return psnr(imresize(output, height=20, width=31), low, peak=1.0)

    figures = [agreement(operator(low))]
    for rounds in (1, 3, 6, 12):
        output = Faithful(operator, rounds=rounds)(low)
        assert output.min() >= 0
        assert output.max() <= 1
        figures.append(agreement(output))
    assert figures == sorted(figures)
    assert figures[0] < 20
    assert figures[-1] > 60


def test_faithful_leaves_a_picture_that_agrees_as_it_is():
    """The input is shrunk from what the operator gives, so there is nothing to correct."""
    high = imresize(picture(9, 7), height=18, width=14).clamp(0, 1)
    low = imresize(high, height=9, width=7)
    made = Faithful(Model(2, _Constant(high), halo=0))(low)
    assert torch.allclose(made, high, atol=1e-6)


class _Constant(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, low: Tensor) -> Tensor:
        return self.value


def test_one_pixel_can_be_faithful():
    low = torch.full((1, 1, 1, 1), 0.3)
    output = Faithful(model(3), rounds=20)(low)
    assert imresize(output, height=1, width=1).item() == pytest.approx(0.3, abs=1e-4)


def test_faithful_refuses_what_does_not_enlarge():
    with pytest.raises(RelumeError, match="does not enlarge"):
        Faithful(Model(1, nn.Identity(), halo=0))
