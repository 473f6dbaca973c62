"""The measured reach is the true one, and a wrong halo is found out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from relume.infer.check_tiling import TOLERANCE, Reach, check_tiling, measure_reach, telling_sizes
from relume.infer.ensemble import Ensemble
from relume.infer.operators import Chain
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.nn.surgery import apply_steps


@dataclass(frozen=True)
class Model:
    network: nn.Module
    scale: int
    halo: int | None
    channels: int = 1

    def __call__(self, low: Tensor) -> Tensor:
        return self.network(low)


def convolutions(scale: int, sizes: tuple[int, ...]) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [nn.Conv2d(1, 1, size, padding=size // 2), nn.GELU()]
    close = nn.Conv2d(1, scale**2, 1).requires_grad_(False)
    close.bias.fill_(0.5)  # far from the clamps of what stands around it
    return nn.Sequential(*layers, close, nn.PixelShuffle(scale)).requires_grad_(False)


def model(scale: int = 2) -> Model:
    return Model(convolutions(scale, (3, 5)), scale, halo=3)


def double(operator: Model) -> Model:
    return replace(operator, network=convolutions(operator.scale, (3, 5)).double())


class Averaging(nn.Module):
    """As channel attention: each pixel is told of all."""

    def forward(self, low: Tensor) -> Tensor:
        return (
            (low * (1 + low.mean((-2, -1), keepdim=True))).repeat_interleave(2, -1).repeat_interleave(2, -2)
        )


@pytest.mark.parametrize(
    "operator",
    [
        double(model()),
        Ensemble(double(model(3))),
        Chain(double(model(2)), double(model(3))),
    ],
    ids=["model", "ensemble", "chain"],
)
def test_the_reach_found_is_the_halo(operator):
    side = 2 * operator.halo + 7
    reach = measure_reach(operator, channels=1, scale=operator.scale, side=side)
    assert reach.farthest == operator.halo
    assert reach.visible is not None
    assert reach.visible <= reach.farthest


def test_a_halo_that_is_not_exhausted():
    """A contract may promise more than the network looks."""
    operator = replace(double(model(2)), halo=5)
    assert measure_reach(operator, channels=1, scale=2, side=31).farthest == 3


def test_a_reach_that_passes_the_square_is_not_taken_for_one_that_ends_there():
    network = convolutions(2, (3, 5)).double()
    assert measure_reach(network, channels=1, scale=2, side=9).farthest == 3
    assert measure_reach(network, channels=1, scale=2, side=7) == Reach(None, None, 7)
    assert measure_reach(Averaging(), channels=1, scale=2, side=31).farthest is None


def test_what_is_read_but_never_seen_is_told_apart():
    """Ten convolutions that hardly look to their sides."""
    layers = [nn.Conv2d(1, 1, 3, padding=1, bias=False).double() for _ in range(10)]
    for layer in layers:
        layer.weight.requires_grad_(False).fill_(1e-3)[..., 1, 1] = 1
    reach = measure_reach(nn.Sequential(*layers), channels=1, scale=1, side=31)
    assert reach.farthest == 10
    assert reach.visible == 3


def test_a_network_of_the_catalogue_reaches_as_far_as_its_contract_says():
    torch.manual_seed(0)
    network = CFSR(CFSRConfig(scale=2, width=8, depths=(1,), kernel_size=5))
    apply_steps(network, ("reparameterise",)).double().requires_grad_(False)
    halo = network.contract.halo
    assert halo is not None
    assert measure_reach(network, channels=3, scale=2, side=2 * halo + 5).farthest == halo


@pytest.mark.parametrize("operator", [model(), Ensemble(model(3))], ids=["model", "stack"])
def test_tiles_are_the_whole(operator):
    found = check_tiling(operator, tile=8)
    assert [(each.height, each.width) for each in found] == telling_sizes(operator.halo, 8)
    assert all(each.largest <= TOLERANCE for each in found)


def test_a_halo_short_by_one_is_found():
    found = check_tiling(replace(model(), halo=2), tile=8)
    assert {each.largest > TOLERANCE for each in found if max(each.height, each.width) <= 8} == {False}
    # Where the tiles are read wider than their halo, as in pictures hardly larger than one, it may not show.
    assert any(each.largest > TOLERANCE for each in found)


def test_an_unbounded_operator_is_blended_and_differs_a_little():
    found = check_tiling(Model(Averaging(), 2, halo=None), tile=24, overlap=8, sizes=[(24, 24), (40, 90)])
    assert found[0].largest <= TOLERANCE
    assert TOLERANCE < found[1].largest < 0.05
