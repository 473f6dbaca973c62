"""Cut into tiles, a picture comes out as it does whole."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from relume.core.contract import Contract
from relume.infer.engines.base import Place
from relume.infer.restorer import Restorer
from relume.infer.tiling import Tiler, run_tiled
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig

HALO = 5
"""Reach of `network`: a 3×3, a 5×5 dilated 1 and a 5×5 convolution."""


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Convolutions of ones, so that every pixel within reach counts, then a pixel shuffle by 3."""
    layers = [nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 5, padding=2), nn.Conv2d(1, 9, 5, padding=2)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    return nn.Sequential(*layers, nn.PixelShuffle(3)).eval().requires_grad_(False)


@settings(max_examples=150, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(1, 50), batch=st.integers(1, 2))
def test_tiled_is_whole(network, height, width, tile, batch):
    low = torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(height * 41 + width))
    told: list[float] = []
    tiled = run_tiled(network, low, scale=3, tile=tile, halo=HALO, advance=told.append)
    assert tiled.shape == (batch, 1, 3 * height, 3 * width)
    assert torch.allclose(tiled, network(low), atol=1e-5)
    assert told == sorted(told)
    assert told[-1] == 1


def test_a_halo_short_by_one_pixel_would_be_seen(network):
    low = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    short = run_tiled(network, low, scale=3, tile=8, halo=HALO - 1)
    assert not torch.allclose(short, network(low), atol=1e-5)


@given(height=st.integers(1, 60), width=st.integers(1, 60), tile=st.integers(1, 70), halo=st.integers(0, 80))
def test_all_tiles_of_a_picture_are_read_in_one_size_and_stay_inside(height, width, tile, halo):
    sizes = set()

    def window(top, bottom, left, right):
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        sizes.add((bottom - top, right - left))
        return torch.zeros(1, 1, bottom - top, right - left)

    strips = list(Tiler(lambda low: low, scale=1, tile=tile, halo=halo).strips(window, height, width))
    assert sum(strip.shape[-2] for strip in strips) == height
    assert {strip.shape[-1] for strip in strips} == {width}
    ((rows, columns),) = sizes
    assert rows <= min(height, tile + 2 * halo)
    assert columns <= min(width, tile + 2 * halo)


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(0)
    network = CFSR(CFSRConfig(scale=2, width=8, depths=(1, 1), kernel_size=5))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("_scale"):
                parameter.fill_(1.0)  # as built, the layers are all but switched off
    return Restorer(network, name="small", engine="torch", place=Place())


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (7, 5), (13, 29), (40, 31)])
@pytest.mark.parametrize("tile", [3, 8, 64])
def test_a_real_network_in_tiles_is_whole(restorer, size, tile):
    """Sizes odd, of one pixel, and smaller than the halo."""
    low = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    assert restorer.contract.halo > 7
    whole = restorer.run(low)
    assert torch.allclose(restorer.run(low, tile=tile), whole, atol=1e-5)
    assert whole.shape == (1, 3, 2 * size[0], 2 * size[1])


def test_a_network_of_unbounded_reach_runs_whole_whatever_the_tile():
    class Unbounded(CFSR):
        @property
        def contract(self) -> Contract:
            return dataclasses.replace(super().contract, halo=None)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.shape)
            return super().forward(x)

        def folded(self) -> nn.Module:
            return self

    seen: list[torch.Size] = []
    network = Unbounded(CFSRConfig(scale=2, width=8, depths=(1,), kernel_size=3)).eval()
    unbounded = Restorer(network, name="unbounded", engine="torch", place=Place())
    seen.clear()
    unbounded.run(torch.rand(1, 3, 20, 30), tile=4)
    assert seen == [(1, 3, 20, 30)]
