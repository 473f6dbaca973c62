"""An adversary: both sides' equations, who gets a gradient, and that each kind trains."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from relume.measures.losses.adversarial import Kind, discriminator_loss, gradient_penalty, network_loss
from relume.train.objectives.base import Partnered
from relume.train.objectives.weighted import WeightedConfig

KINDS = get_args(Kind)
JUDGES = [
    {"name": "unet", "width": 4},
    {"name": "patch", "width": 4, "depth": 1},
    {"name": "srgan", "width": 4, "hidden": 8},
    {"name": "srgan", "width": 4, "hidden": 8, "side": 16},
]


def objective(kind="vanilla", judge=JUDGES[0], **more):
    torch.manual_seed(0)
    adversarial = {"kind": kind, "discriminator": judge, **more}
    return WeightedConfig.parse({"adversarial": adversarial}, where="objective").build()


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    stripes = (torch.arange(16) // 2 % 2).float().expand(4, 3, 16, 16)
    return {
        "input": torch.rand(4, 3, 16, 16, generator=generator),
        "target": 0.8 * stripes + 0.2 * torch.rand(4, 3, 16, 16, generator=generator),
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


PAPERS = {
    "vanilla": lambda r, f: (
        -np.log(sigmoid(f)).mean(),
        -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean(),
    ),
    "relativistic": lambda r, f: (
        -np.log(sigmoid(f - r.mean())).mean() - np.log(1 - sigmoid(r - f.mean())).mean(),
        -np.log(sigmoid(r - f.mean())).mean() - np.log(1 - sigmoid(f - r.mean())).mean(),
    ),
    "hinge": lambda r, f: (-f.mean(), np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean()),
    "least-squares": lambda r, f: (
        0.5 * ((f - 1) ** 2).mean(),
        0.5 * ((r - 1) ** 2).mean() + 0.5 * (f**2).mean(),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_are_the_papers(kind):
    torch.manual_seed(0)
    real, fake = 2 * torch.randn(2, 3, 1, 4, 5, dtype=torch.float64)
    ours = network_loss(kind, fake, real).item(), discriminator_loss(kind, fake, real).item()
    assert ours == pytest.approx(PAPERS[kind](real.numpy(), fake.numpy()))
    assert torch.autograd.gradcheck(lambda f: network_loss(kind, f, real), fake.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda r, f: discriminator_loss(kind, f, r), (real.requires_grad_(), fake)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_fooling_pays_for_the_network_and_telling_apart_for_the_judge(kind):
    real, low, high = torch.full((4, 1), 0.9), torch.full((4, 1), -2.0), torch.full((4, 1), 0.8)
    assert network_loss(kind, high, real) < network_loss(kind, low, real)
    assert discriminator_loss(kind, low.clamp(min=-0.1), real) < discriminator_loss(kind, high, real)


def test_huge_logits_stay_numbers():
    huge = torch.tensor([1e4, -1e4])
    for kind in ("vanilla", "relativistic"):
        assert network_loss(kind, huge, -huge).isfinite()
        assert discriminator_loss(kind, huge, -huge).isfinite()


def test_the_penalty_is_the_squared_slope():
    judge = nn.Linear(6, 2, bias=False).double()
    pictures = torch.rand(5, 6, dtype=torch.float64)
    penalty = gradient_penalty(judge, pictures)
    assert penalty.item() == pytest.approx(judge.weight.sum(0).square().sum().item())
    penalty.backward()
    assert judge.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge["name"])
def test_in_the_networks_step_the_network_alone_gets_a_gradient(kind, judge):
    ours = objective(kind, judge)
    assert isinstance(ours, Partnered)
    network = nn.Conv2d(3, 3, 3, padding=1)
    losses = ours(network, batch())
    assert losses["loss"].item() == pytest.approx((losses["l1"] + 0.1 * losses["adversarial"]).item())
    losses["adversarial"].backward()
    assert network.weight.grad.abs().sum() > 0
    assert all(value.grad is None and value.requires_grad for value in ours.partner.parameters())
    network.zero_grad(set_to_none=True)
    own = ours.partner_losses(ours.partner)
    own["loss"].backward()
    assert network.weight.grad is None
    assert all(value.grad is not None for value in ours.partner.parameters())
    assert {"loss", "real", "fake"} == own.keys()


@pytest.fixture
def one_thread():
    """Sums in one order: forty steps of an adversarial training are too many for rounding to stay small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("kind", "judge", "more"),
    [*((kind, JUDGES[0], {}) for kind in KINDS), *(("vanilla", judge, {}) for judge in JUDGES[1:]),
     ("vanilla", JUDGES[1], {"penalty": 1.0})],
)  # fmt: skip
def test_the_judge_learns_to_tell_and_the_network_to_fool(one_thread, kind, judge, more):
    ours = objective(kind, judge, weight=1.0, **more)
    ours.parts = {}
    network = nn.Conv2d(3, 3, 3, padding=1)
    optimiser = torch.optim.Adam(ours.partner.parameters(), lr=5e-3)
    costs = []
    for step in range(40):
        ours(network, batch(step))
        own = ours.partner_losses(ours.partner)
        optimiser.zero_grad()
        own["loss"].backward()
        optimiser.step()
        costs.append(own["loss"].item())
    assert np.mean(costs[-5:]) < 0.7 * costs[0]
    assert own["real"] > own["fake"]
    # The judge stays as it is; the network alone learns to please it.
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    ours.partner.eval()
    costs = []
    for step in range(30):
        losses = ours(network, batch(step))
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        costs.append(losses["adversarial"].item())
    assert np.mean(costs[-5:]) < costs[0] - 0.1 * abs(costs[0])
    assert all(math.isfinite(cost) for cost in costs)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_penalty_is_logged_and_precision_does_not_matter(precision):
    ours = objective(penalty=10.0)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        ours(nn.Conv2d(3, 3, 3, padding=1), batch())
        own = ours.partner_losses(ours.partner)
    assert own["penalty"] >= 0
    assert all(value.dtype == torch.float32 for value in own.values())
    own["loss"].backward()
    assert all(value.grad.isfinite().all() for value in ours.partner.parameters())
