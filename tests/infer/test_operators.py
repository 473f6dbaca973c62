"""Operators on operators: what they compute, and that their halos let them be cut into tiles."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from relume.infer.ensemble import Ensemble
from relume.infer.operators import Chain, Operator
from relume.infer.tiling import run_tiled


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
    "both": (Ensemble(Chain(model(2), model(2))), 3),
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
