"""What a few real steps tell of a training's time: honest, and soon there, however large the network."""

import time

import pytest
import torch
from torch import nn

from relume.core.contract import Contract
from relume.data.benchmarks import Pair
from relume.train.demand import cut, demand, patch_macs, time_steps
from relume.train.loop import Loop
from relume.train.objectives.pixel import PixelConfig
from relume.train.objectives.weighted import WeightedConfig
from relume.train.settings import LoopConfig
from relume.train.validation import Validation, ValidationConfig

SHARE = 8


class Slow(nn.Module):
    """Takes a while for each picture."""

    def __init__(self, seconds):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.seconds = seconds
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        time.sleep(self.seconds * len(x) * x.shape[-1] / 4)
        return self.layer(x)


class Source:
    def batches(self, first, last, *, rank=0, world=1, device=None):
        for _ in range(first, last):
            yield {name: torch.rand(SHARE, 3, 4, 4) for name in ("input", "target")}


def timed(folder, seconds, *, most_seconds=0.6, side=None, **settings):
    network = Slow(seconds)
    config = LoopConfig(steps=100, device="cpu", **settings)
    loop = Loop(network, PixelConfig().build(), Source(), config, folder=folder, recipe={})
    told = []
    began = time.perf_counter()
    found = time_steps(
        loop, most_seconds=most_seconds, side=side, tell=lambda done, of: told.append((done, of))
    )
    return found, network.sizes, told, time.perf_counter() - began


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_takes_too_long_is_reckoned_from_a_few_patches(tmp_path, accumulate):
    found, sizes, told, spent = timed(tmp_path, 0.05, accumulate=accumulate)
    assert (found.whole, found.patches) == (False, 2 * accumulate)
    assert set(sizes) == {2}
    assert spent < 10
    # Eight patches of 0.05 s each.
    assert 0.4 <= found.seconds < 4
    assert told[-1][0] == len(told) >= 1


def test_a_step_of_a_large_network_is_reckoned_from_parts_of_patches(tmp_path):
    found, sizes, _, _ = timed(tmp_path, 0.2, side=2)
    assert (found.whole, found.patches, found.side) == (False, 2, 2)
    assert set(sizes) == {2}
    # Eight patches of 0.2 s each: two of half a side's length sleep 0.2 s, a quarter of their pixels apart.
    assert 8 * 0.2 <= found.seconds < 16


def test_parts_are_the_same_place_of_input_and_target():
    batch = {"input": torch.rand(2, 3, 8, 8), "target": torch.rand(2, 3, 16, 16), "seen": torch.rand(2, 5)}
    part = cut(batch, 4)
    assert torch.equal(part["input"], batch["input"][..., :4, :4])
    assert torch.equal(part["target"], batch["target"][..., :8, :8])
    assert torch.equal(part["seen"], batch["seen"])


def demanded(folder, objective, *, brief):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    config = LoopConfig(steps=1, device="cpu")
    loop = Loop(network, objective, Source(), config, folder=folder, recipe={})
    batch = {name: torch.rand(2, 3, 64, 64) for name in ("input", "target")}
    return demand(loop.stepper, batch, brief=brief)


def test_what_a_patch_asks_for_is_reckoned_from_a_part_where_that_is_enough(tmp_path, monkeypatch):
    whole = demanded(tmp_path, PixelConfig().build(), brief=True)
    macs = 64 * 64 * 2 * 3 * 4 * 9
    assert (whole.macs, whole.side) == (macs, 64)
    monkeypatch.setattr("relume.train.demand._BRIEF", 2 * macs / 4)
    part = demanded(tmp_path, PixelConfig().build(), brief=True)
    assert (part.macs, part.side, part.state) == (macs, 32, whole.state)
    assert part.activations == pytest.approx(whole.activations, rel=0.01)
    assert demanded(tmp_path, PixelConfig().build(), brief=False) == whole
    # Other losses may need whole patches.
    weighted = WeightedConfig().build()
    assert demanded(tmp_path, weighted, brief=True).side == 64


def test_attention_is_counted_and_nothing_is_computed():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(16)

        def forward(self, x):
            seen.append(x.device.type)
            tokens = self.norm(x.flatten(2).transpose(1, 2))[:, None]  # B 1 HW 3
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    seen = []
    network = Attending().train()
    before = network.norm.running_mean.clone()
    assert patch_macs(network, torch.rand(2, 3, 4, 4)) == 2 * 16 * 16 * 3
    assert seen == ["meta"]
    assert torch.equal(network.norm.running_mean, before)


def test_a_network_whose_values_decide_is_counted_as_it_runs():
    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            if x.mean() <= 0:
                return x
            tokens = self.layer(x).flatten(2)[:, None]  # B 1 3 HW
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    assert patch_macs(Deciding(), torch.rand(2, 3, 4, 4)) == 16 * 9 + 2 * 3 * 3 * 16
    assert patch_macs(Deciding(), -torch.rand(2, 3, 4, 4)) == 0


def test_a_network_that_is_quick_is_timed_on_whole_batches(tmp_path):
    found, sizes, told, _ = timed(tmp_path, 0.001, most_seconds=60)
    assert (found.whole, found.patches, found.steps) == (True, SHARE, 10)
    assert sizes[-10:] == [SHARE] * 10
    assert told == [(done, 12) for done in range(1, 13)]
    assert found.seconds >= 0.008


@pytest.mark.parametrize(("seconds", "most", "done"), [(0.001, 60, True), (2.0, 1.5, False)])
def test_a_validation_that_takes_too_long_is_reckoned_from_a_part(tmp_path, monkeypatch, seconds, most, done):
    monkeypatch.setattr("relume.train.validation._PART", 1)
    pair = Pair(
        set_name="s", name="p", low=torch.rand(3, 16, 16), high=torch.rand(3, 16, 16), low_source="given",
        high_path=tmp_path / "p.png", low_path=None, high_sha256="", low_sha256=None,
    )  # fmt: skip
    contract = Contract(scale=1, channels=3, halo=0)
    config = ValidationConfig(pictures=0, protocol="sr-rgb")
    validation = Validation(config, [pair], contract=contract, folder=tmp_path)
    network = Slow(seconds / 20)
    found, validated = validation.rehearse(network, most_seconds=most)
    assert validated == done
    assert len(network.sizes) == (3 if done else 2)
    if not done:
        # A part of one pixel sleeps a fortieth of `seconds`, and there are 256.
        assert 256 * 2.0 / 80 <= found < 60
