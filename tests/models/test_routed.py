"""What is the routed network's own: its two ways, its windows, and that the large one runs only there."""

import pytest
import torch
from pydantic import ValidationError

from relume.core.errors import ConfigError
from relume.models import zoo
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.models.super_resolution.routed import Routed, RoutedConfig

SETTINGS = {"scale": 2, "width": 8, "depths": [1], "kernel_size": 3}
SMALL = RoutedConfig(settings=SETTINGS, width=8, depth=1, hidden=4, block=4, context=13)
"""The context is at least the large network's reach, so windows give what the whole picture gives."""


def randomised(config: RoutedConfig = SMALL) -> Routed:
    torch.manual_seed(0)
    network = Routed(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network.eval()


def middle(network: Routed, low: torch.Tensor) -> float:
    """An effort at which some blocks are heavy and some are not."""
    with torch.no_grad():
        found = network._decided(low)[1]
        efforts = [step / 1000 for step in range(1001)]
        for network.effort in efforts:
            found = network._decided(low)[1]
            if found.float().mean() > 0.4:
                break
    assert found.float().mean() < 0.9
    return network.effort


@torch.no_grad()
def test_least_effort_is_the_small_network_and_most_the_large_one():
    network, low = randomised(), torch.rand(2, 3, 21, 30)
    network.effort = 0
    assert torch.equal(network(low), network.light(low)[0])
    network.effort = 1
    assert (network(low) - network.heavy(low)).abs().max() <= 1e-5


@torch.no_grad()
def test_each_pixel_is_made_by_the_way_that_was_chosen():
    network, low = randomised(), torch.rand(2, 3, 21, 30)
    assert SMALL.context >= network.heavy.contract.halo
    network.effort = middle(network, low)
    routes = network.routes(low)
    assert routes.shape == (2, 1, 42, 60)
    chosen = network._decided(low)[1].repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None, :42, :60]
    assert (routes | ~chosen).all()
    assert not routes.all()
    wanted = torch.where(routes, network.heavy(low), network.light(low)[0])
    assert (network(low) - wanted).abs().max() <= 1e-5


@torch.no_grad()
def test_more_effort_chooses_more_blocks():
    network, low = randomised(), torch.rand(1, 3, 21, 30)
    before = torch.zeros(1, 6, 8, dtype=torch.bool)
    for step in range(101):
        network.effort = step / 100
        chosen = network._decided(low)[1]
        assert not (before & ~chosen).any()
        assert step or not chosen.any()
        before = chosen
    assert before.all()
    network.effort = None
    published = network.routes(low)
    network.effort = 0.5
    assert torch.equal(network.routes(low), published)


@torch.no_grad()
def test_large_network_sees_its_windows_alone():
    network = randomised(SMALL.model_copy(update={"context": 2}))
    low = torch.rand(1, 3, 40, 40)
    network.effort = middle(network, low)
    seen = []
    with network.heavy.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0])):
        network.effort = 0
        network(low)
        assert seen == []
        network.effort = 1
        network(low)
        assert [part.shape[2:] for part in seen] == [(40, 40)]


@torch.no_grad()
def test_strips_of_the_small_network_are_the_whole(monkeypatch):
    network, low = randomised(), torch.rand(2, 3, 37, 30)
    light, chosen = network.light(low)[0], network._decided(low)[1]
    monkeypatch.setattr("relume.models.super_resolution.routed._STRIP", 1)
    strips, found = network._decided(low)
    assert (strips - light).abs().max() <= 1e-5
    assert torch.equal(found, chosen)


@torch.no_grad()
def test_large_windows_are_cut_without_a_seam(monkeypatch):
    network, low = randomised(), torch.rand(1, 3, 37, 30)
    network.effort = 1
    monkeypatch.setattr("relume.models.super_resolution.routed._LARGEST", 8)
    assert (network(low) - network.heavy(low)).abs().max() <= 1e-5


@torch.no_grad()
def test_folded_form_gives_the_same_and_leaves_the_network_as_it_was():
    network, low = randomised(), torch.rand(1, 3, 21, 30)
    network.effort = middle(network, low)
    folded = network.folded()
    assert (folded(low) - network(low)).abs().max() <= 1e-4
    assert isinstance(network.heavy, CFSR)
    assert not isinstance(folded.heavy, CFSR)


@torch.no_grad()
def test_starts_from_the_large_network_alone_or_from_a_whole_one():
    torch.manual_seed(5)
    large = CFSR(CFSRConfig(**SETTINGS)).eval()
    network, low = Routed(SMALL).eval(), torch.rand(1, 3, 9, 8)
    left = network.start_from(large)
    assert {name.split(".")[0] for name in left} == {"light"}
    assert (network.heavy(low) - large(low)).abs().max() <= 1e-5
    other = Routed(SMALL).eval()
    assert other.start_from(network) == []
    assert (other(low) - network(low)).abs().max() <= 1e-5


def test_training_mixes_both_by_probability():
    network, low = randomised().train(), torch.rand(1, 3, 9, 8)
    light, probability = network.light(low)
    weight = probability[:, None].repeat_interleave(2, 2).repeat_interleave(2, 3)
    wanted = torch.lerp(light, network.heavy(low), weight)
    assert (network(low) - wanted).abs().max() <= 1e-5


def test_settings_of_the_large_network_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'scale'"):
        Routed(RoutedConfig(settings={"scael": 2}))
    with pytest.raises(ValidationError):
        RoutedConfig(block=0)


def test_shipped_variant_enlarges_by_its_name():
    assert zoo.build(zoo.variant("cfsr-routed-x4").config, system="routed").contract.scale == 4
