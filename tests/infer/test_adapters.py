"""Operators fitted to a picture's channels: cut into tiles like any other, by their own halo."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relume.core.contract import Contract
from relume.infer.adapters import fitted
from relume.infer.ensemble import Ensemble
from relume.infer.operators import Chain
from relume.infer.tiling import run_tiled


@dataclass(frozen=True)
class Nearest:
    """Looks at the pixel alone, so the halo that is needed is bicubic's."""

    scale: int
    channels: int = 1
    halo: int | None = 0

    def __call__(self, low: Tensor) -> Tensor:
        return low.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2).square()


STACKS = {
    "x2": Nearest(2),
    "x3": Nearest(3),
    "chain": Chain(Nearest(2), Nearest(3)),
    "ensemble": Ensemble(Nearest(3)),
}


@pytest.mark.parametrize("name", STACKS)
@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 34), width=st.integers(1, 34), tile=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
)  # fmt: skip
def test_luma_in_tiles_is_luma_whole(name, height, width, tile, channels):
    operator = fitted(STACKS[name], channels, luma=True)
    low = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(height * 37 + width))
    whole = operator(low)
    assert whole.shape == (1, channels, height * operator.scale, width * operator.scale)
    tiled = run_tiled(operator, low, scale=operator.scale, tile=tile, halo=operator.halo)
    assert (tiled - whole).abs().max() <= 1e-5


@pytest.mark.parametrize(("inside", "halo"), [(0, 2), (2, 2), (5, 5), (None, None)])
def test_the_halo_is_the_farther_of_model_and_bicubic(inside, halo):
    assert fitted(Nearest(2, halo=inside), 3, luma=True).halo == halo
    assert fitted(Nearest(2, halo=inside), 3, luma=False).halo == inside


def test_what_fits_is_left_alone():
    operator = Nearest(2)
    assert fitted(operator, 1, luma=False) is operator
    assert fitted(operator, 1, luma=True) is not operator


def test_luma_of_several_channels_is_no_contract():
    with pytest.raises(ValueError, match="luma is one channel, not 3"):
        Contract(scale=2, channels=3, halo=1, luma=True)
