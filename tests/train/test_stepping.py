"""Single steps: parts of a batch, loss scale, partners, and what objectives bring along."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from relume.core.errors import RelumeError
from relume.train.objectives.base import LOGGED, Partnered, Placed
from relume.train.objectives.pixel import PixelConfig
from relume.train.settings import LoopConfig, OptimiserConfig
from relume.train.stepping import Stepper


def small(*, norm=False):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 3, 3, padding=1)]
    return nn.Sequential(*layers[:1], *([nn.BatchNorm2d(4)] if norm else []), *layers[1:])


def batches(count, size=6):
    for step in range(count):
        generator = torch.Generator().manual_seed(step)
        low = torch.rand(size, 3, 8, 8, generator=generator)
        yield {"input": low, "target": low.flip(1)}


def stepper(network, objective=None, **settings):
    config = LoopConfig(**{"steps": 20, "schedule": {"warmup": 0}, **settings})
    return Stepper(network, objective or PixelConfig().build(), config, Accelerator(cpu=True))


class Judged:
    """A pixel distance and what a small judge says of it; the judge learns to tell both apart."""

    def __init__(self, *, optimiser=None):
        torch.manual_seed(1)
        self.partner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3))
        self.optimiser = optimiser
        self.calls = []

    def __call__(self, network, batch):
        output = network(batch["input"])
        self.seen = output.detach(), batch["target"]
        self.calls.append(any(value.requires_grad for value in self.partner.parameters()))
        pixel = (output - batch["target"]).abs().mean()
        judged = -self.partner(output).mean()
        return {"loss": pixel + 0.1 * judged, "pixel": pixel}

    def partner_losses(self, partner):
        self.calls.append(all(value.requires_grad for value in self.partner.parameters()))
        fake, real = (partner(pictures).mean() for pictures in self.seen)
        return {"loss": fake.relu() + (1 - real).relu(), "real": real, "fake": fake}


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_parts_of_a_batch_give_what_the_whole_gives(parts):
    networks = [small(), small()]
    steppers = [
        stepper(network, accumulate=count) for network, count in zip(networks, (1, parts), strict=True)
    ]
    for step, batch in enumerate(batches(10)):
        whole, cut = (one.step(batch, step).values for one in steppers)
        assert cut["loss"].item() == pytest.approx(whole["loss"].item(), abs=1e-6)
        assert cut["gradient"].item() == pytest.approx(whole["gradient"].item(), rel=1e-5)
    ours, theirs = (network.state_dict() for network in networks)
    assert max((ours[name] - theirs[name]).abs().max() for name in ours) <= 1e-6
    assert any((ours[name] - value).abs().max() > 1e-3 for name, value in small().state_dict().items())


def test_parts_of_a_batch_hold_less_at_once():
    seen = []
    network = small()
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    stepper(network, accumulate=3).step(next(batches(1)), 0)
    assert seen == [2, 2, 2]


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(RelumeError, match=r"accumulate=4 cannot cut a process's 6 samples"):
        stepper(small(), accumulate=4).step(next(batches(1)), 0)


def test_too_large_a_loss_scale_is_lowered_without_a_word():
    network = small()
    one = stepper(network, precision="fp16")
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    before = copy.deepcopy(network.state_dict())
    outcome = one.step(next(batches(1)), 0)
    assert outcome.overflow
    assert not outcome.broken
    assert one.scaler.get_scale() == 2.0**29
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    for step in range(30):
        outcome = one.step(next(batches(1)), step)
    assert not outcome.overflow
    assert outcome.values["loss_scale"] < 2.0**29


def test_fp16_learns_as_fp32_does():
    losses = {}
    for precision in ("fp32", "fp16"):
        one = stepper(small(), precision=precision, optimiser={"learning_rate": 1e-2})
        for step, batch in enumerate(batches(20)):
            outcome = one.step(batch, step)
        losses[precision] = outcome.values["loss"].item()
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=0.05)


def test_partner_learns_beside_and_both_are_as_written_out_by_hand():
    objective, by_hand = Judged(optimiser=OptimiserConfig(learning_rate=3e-3)), Judged()
    network, ours = small(), small()
    assert isinstance(objective, Partnered)
    assert not isinstance(PixelConfig().build(), Partnered)
    one = stepper(network, objective, clip=0)
    first = torch.optim.Adam(ours.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=True)
    second = torch.optim.Adam(by_hand.partner.parameters(), lr=3e-3, betas=(0.9, 0.99), fused=True)
    for step, batch in enumerate(batches(5)):
        outcome = one.step(batch, step)
        for optimiser, lr in ((first, 1e-3), (second, 3e-3)):
            rate = one.holdings.optimisers["network"].param_groups[0]["lr"] * lr / 1e-3
            optimiser.param_groups[0]["lr"] = rate
        first.zero_grad()
        by_hand(ours, batch)["loss"].backward()
        first.step()
        second.zero_grad()  # of what the network's loss left in the judge
        losses = by_hand.partner_losses(by_hand.partner)
        losses["loss"].backward()
        second.step()
        assert outcome.values["partner_loss"].item() == pytest.approx(losses["loss"].item(), abs=1e-5)
        assert {"loss", "pixel", "real", "fake", "partner_loss", "partner_gradient"} <= outcome.values.keys()
        assert outcome.values.keys() - {"pixel"} <= {*LOGGED}
    assert objective.calls == [False, True] * 5
    for mine, other in ((network, ours), (objective.partner, by_hand.partner)):
        state = other.state_dict()
        assert all(torch.allclose(value, state[name], atol=1e-6) for name, value in mine.state_dict().items())


def test_a_partner_whose_loss_is_no_number_holds_both_back():
    objective = Judged()
    network = small(norm=True)
    one = stepper(network, objective)
    one.train()
    one.step(next(batches(1)), 0)
    before = {name: value.clone() for name, value in one.holdings.tensors()}
    broken = objective.partner_losses
    objective.partner_losses = lambda partner: {
        name: value * float("nan") for name, value in broken(partner).items()
    }
    assert one.step(next(batches(1)), 1).broken
    after = dict(one.holdings.tensors())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_an_objective_holds_comes_to_the_device():
    class Encoding(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv2d(3, 3, 1)

        def forward(self, network, batch):
            return {"loss": self.encoder(network(batch["input"])).abs().mean()}

    class Watched(Encoding):
        def to(self, device):
            self.told = device
            return super().to(device)

    objective = Watched()
    assert isinstance(objective, Placed)
    one = stepper(small(), objective)
    assert objective.told == one.accelerator.device
    assert "loss" in one.step(next(batches(1)), 0).values
