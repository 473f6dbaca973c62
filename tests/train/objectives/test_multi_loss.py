"""The parametric multi-loss: what it draws and sums, and that a slider follows it after a short training."""

import pytest
import torch
from torch import nn

from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.errors import ConfigError
from relume.measures.losses.total_variation import total_variation
from relume.nn.network import Network
from relume.nn.slider import make_tunable
from relume.train.loop import Loop, RunStoppedError
from relume.train.objectives.base import Partnered, Placed
from relume.train.objectives.models import build_objective
from relume.train.objectives.multi_loss import MultiLossConfig, draw
from relume.train.observers import JsonLog
from relume.train.settings import LoopConfig

AIMS = [["l1"], [{"name": "l1", "weight": 0.3}, {"name": "total-variation", "weight": 0.7}]]


class Small(Network):
    """Two convolutions around a skip."""

    config = Config()

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 3, 3, padding=1))

    @property
    def contract(self):
        return Contract(scale=1, channels=3, halo=2)

    def forward(self, x):
        return x + self.body(x)


def objective(**values):
    return MultiLossConfig.parse({"name": "multi-loss", "aims": AIMS, **values}, where="objective")


def tunable():
    torch.manual_seed(0)
    network = Small()
    make_tunable(network)
    return network


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return {"input": torch.rand(2, 3, 12, 12), "target": torch.rand(2, 3, 12, 12)}


def test_parameters_are_uniform_between_the_aims():
    torch.manual_seed(0)
    drawn = torch.stack([draw(2) for _ in range(4000)])
    assert torch.allclose(drawn.sum(1), torch.ones(4000))
    assert drawn.min() >= 0
    strengths = drawn[:, 1].sort().values
    assert (strengths - torch.linspace(0, 1, 4000)).abs().max() < 0.03
    three = torch.stack([draw(3) for _ in range(4000)])
    assert (three.mean(0) - 1 / 3).abs().max() < 0.02


def test_the_network_runs_at_the_parameters_that_weigh_the_losses(batch):
    network = tunable()
    with torch.no_grad():
        for value in network.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    torch.manual_seed(5)
    losses = build_objective(objective(), None)(network, batch)
    torch.manual_seed(5)
    network.strength = draw(2)[1].item()
    output = network(batch["input"])
    l1 = (output - batch["target"]).abs().mean().item()
    calm = 0.3 * l1 + 0.7 * total_variation(output).item()
    assert list(losses) == ["loss", "aim_1", "aim_2"]
    assert losses["aim_1"].item() == pytest.approx(l1, rel=1e-5)
    assert losses["aim_2"].item() == pytest.approx(calm, rel=1e-5)
    expected = (1 - network.strength) * l1 + network.strength * calm
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)
    losses["loss"].backward()
    assert all(value.grad is not None for value in network.parameters())


def test_an_adversary_has_its_say_by_the_share_of_the_last_aim(batch):
    torch.manual_seed(0)
    judge = {"weight": 0.5, "discriminator": {"name": "unet", "width": 4}}
    batch = {name: torch.rand(2, 3, 16, 16) for name in batch}
    network, plain, judged = tunable(), objective().build(), objective(adversarial=judge).build()
    assert isinstance(judged, Partnered)
    assert not isinstance(plain, Partnered)
    torch.manual_seed(5)
    without = plain(network, batch)["loss"].item()
    torch.manual_seed(5)
    losses = judged(network, batch)
    torch.manual_seed(5)
    share = draw(2)[1].item()
    expected = without + share * 0.5 * losses["adversarial"].item()
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)
    losses["loss"].backward()
    assert all(value.grad is None for value in judged.partner.parameters())
    judged.partner_losses(judged.partner)["loss"].backward()
    assert all(value.grad is not None for value in judged.partner.parameters())


def test_each_batch_draws_anew_and_a_seed_repeats_it(batch):
    network, loss = tunable(), objective().build()
    assert isinstance(loss, Placed)

    def run():
        torch.manual_seed(3)
        return [loss(network, batch)["loss"].item() for _ in range(3)]

    first = run()
    assert len(set(first)) == 3
    assert run() == first
    assert network.tuning is None


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_network_without_a_slider_is_refused(batch, wrapped):
    network = nn.Sequential(Small()) if wrapped else Small()
    with pytest.raises(ConfigError, match="no slider to train"):
        objective().build()(network, batch)
    with pytest.raises(ConfigError, match="between 2 aims, not 3"):
        objective(aims=[["l1"], ["mse"], ["ssim"]]).build()(tunable(), batch)


@pytest.mark.parametrize(
    ("aims", "said"),
    [
        ([["l1"]], "between two aims or more"),
        ([["l1"], []], "between two aims or more"),
        ([["l1"], ["l2"]], "unknown loss 'l2'"),
    ],
)
def test_what_cannot_be_is_one_line(aims, said):
    with pytest.raises(ConfigError, match=said) as error:
        objective(aims=aims)
    assert "\n" not in str(error.value)


def test_a_config_is_written_and_read_again():
    config = objective()
    assert MultiLossConfig.model_validate(config.model_dump(mode="json")) == config


class Noisy:
    """Batches that depend on their step alone."""

    def batches(self, first, last, *, rank, world, device):
        for step in range(first, last):
            target = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(step))
            yield {"input": target + 0.1, "target": target}


def test_a_training_that_was_stopped_goes_on_with_the_same_draws(tmp_path):
    def loop(folder):
        folder.mkdir(exist_ok=True)
        config = LoopConfig(steps=12, log_every=3, save_every=4, validate_every=100)
        return Loop(
            tunable(), objective().build(), Noisy(), config, folder=folder,
            recipe=config.model_dump(mode="json"), observers=[JsonLog(folder)],
        )  # fmt: skip

    straight = loop(tmp_path / "straight").run()
    stopped = loop(tmp_path / "stopped")
    batches = stopped.source.batches

    def stopping(first, *arguments, **named):
        for step, batch in enumerate(batches(first, *arguments, **named), start=first + 1):
            if step == 5:
                stopped.ask_to_stop()
            yield batch

    stopped.source.batches = stopping
    with pytest.raises(RunStoppedError):
        stopped.run()
    resumed = loop(tmp_path / "stopped").run()
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())


def test_a_short_training_makes_losses_follow_the_slider():
    network, loss = tunable(), objective().build()
    dice = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(250):
        coarse = torch.rand(8, 3, 5, 5, generator=dice)
        target = nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")
        noisy = target + 0.1 * torch.randn(target.shape, generator=dice)
        optimiser.zero_grad()
        loss(network, {"input": noisy, "target": target})["loss"].backward()
        optimiser.step()
    far, rough = [], []
    with torch.no_grad():
        for network.strength in (0.0, 0.25, 0.5, 0.75, 1.0):
            output = network(noisy)
            far.append((output - target).abs().mean().item())
            rough.append(total_variation(output).item())
    assert far == sorted(far)
    assert rough == sorted(rough, reverse=True)
    assert rough[-1] < 0.8 * rough[0]
    assert far[-1] > 1.1 * far[0]
