"""The routing objective against its formula, on a real routed network."""

import pytest
import torch
from torch import nn

from relume.core.errors import ConfigError
from relume.models.super_resolution.routed import Routed, RoutedConfig
from relume.train.objectives.routing import RoutingConfig

CONFIG = RoutedConfig(
    settings={"scale": 2, "width": 8, "depths": [1], "kernel_size": 3}, width=8, depth=1, hidden=4
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Routed(CONFIG).train()


def batch():
    return {"input": torch.rand(2, 3, 6, 7), "target": torch.rand(2, 3, 12, 14)}


def test_loss_is_the_formulas(network):
    some = batch()
    losses = RoutingConfig(balance=0.1, light=0.25).build()(network, some)
    light, probability = network.light(some["input"])
    distance = (network(some["input"]) - some["target"]).abs().mean()
    balance = (2 * probability.mean() - 1).abs()
    alone = (light - some["target"]).abs().mean()
    assert losses["distance"].item() == pytest.approx(distance.item(), abs=1e-6)
    assert losses["balance"].item() == pytest.approx(balance.item(), abs=1e-6)
    assert losses["light"].item() == pytest.approx(alone.item(), abs=1e-6)
    assert losses["loss"].item() == pytest.approx((distance + 0.1 * balance + 0.25 * alone).item(), abs=1e-6)
    assert network.effort is None


def test_published_form_has_two_terms(network):
    assert RoutingConfig().build()(network, batch()).keys() == {"loss", "distance", "balance"}


def test_balance_alone_pulls_the_mean_probability_to_a_half(network):
    with torch.no_grad():
        network.light.classify[-1].bias.copy_(torch.tensor([-2.0, 2.0]))
    some = batch()
    objective = RoutingConfig(balance=1000.0).build()
    optimiser = torch.optim.Adam(network.light.parameters(), lr=0.05)
    means = []
    for _ in range(60):
        optimiser.zero_grad()
        objective(network, some)["loss"].backward()
        optimiser.step()
        means.append(network.light(some["input"])[1].mean().item())
    assert means[0] > 0.9
    assert means[-1] == pytest.approx(0.5, abs=0.1)


def test_a_network_that_routes_nothing_is_refused():
    with pytest.raises(ConfigError, match="one router"):
        RoutingConfig().build()(nn.Conv2d(3, 3, 1), batch())
