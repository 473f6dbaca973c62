"""What a few real steps tell of a training's time: honest, and soon there, however large the network."""

import time

import pytest
import torch
from torch import nn

from relume.core.contract import Contract
from relume.data.benchmarks import Pair
from relume.train.demand import time_steps
from relume.train.loop import Loop
from relume.train.objectives.pixel import PixelConfig
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


def timed(folder, seconds, **settings):
    network = Slow(seconds)
    config = LoopConfig(steps=100, device="cpu", **settings)
    loop = Loop(network, PixelConfig().build(), Source(), config, folder=folder, recipe={})
    told = []
    began = time.perf_counter()
    found = time_steps(loop, most_seconds=0.6, tell=lambda done, of: told.append((done, of)))
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


def test_a_network_that_is_quick_is_timed_on_whole_batches(tmp_path):
    found, sizes, told, _ = timed(tmp_path, 0.001)
    assert (found.whole, found.patches, found.steps) == (True, SHARE, 10)
    assert sizes[-10:] == [SHARE] * 10
    assert told == [(done, 12) for done in range(1, 13)]
    assert found.seconds >= 0.008


@pytest.mark.parametrize(("seconds", "done"), [(0.001, True), (2.0, False)])
def test_a_validation_that_takes_too_long_is_reckoned_from_a_part(tmp_path, monkeypatch, seconds, done):
    monkeypatch.setattr("relume.train.validation._PART", 1)
    pair = Pair(
        set_name="s", name="p", low=torch.rand(3, 16, 16), high=torch.rand(3, 16, 16), low_source="given",
        high_path=tmp_path / "p.png", low_path=None, high_sha256="", low_sha256=None,
    )  # fmt: skip
    contract = Contract(scale=1, channels=3, halo=0)
    config = ValidationConfig(pictures=0, protocol="sr-rgb")
    validation = Validation(config, [pair], contract=contract, folder=tmp_path)
    network = Slow(seconds / 20)
    found, validated = validation.rehearse(network, most_seconds=1.5)
    assert validated == done
    assert len(network.sizes) == (3 if done else 2)
    if not done:
        # A part of one pixel sleeps a fortieth of `seconds`, and there are 256.
        assert 256 * 2.0 / 80 <= found < 60
