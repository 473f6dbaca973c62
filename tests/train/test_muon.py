"""Muon against PyTorch's own where that can, against singular values, and resumed."""

import copy

import pytest
import torch
from torch import nn

from relume.train.muon import Muon, matrices_of, orthogonalised
from relume.train.settings import LoopConfig, OptimiserConfig
from relume.train.stepping import build_optimiser

WITHOUT_ADAM = ("plain.weight", "wide.weight", "twin.weight")


class Mixed(nn.Module):
    """One of each: a table, a plain and a depthwise convolution, a norm, and linear layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Parameter(torch.randn(5, 2))
        self.plain = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.GroupNorm(1, 8)
        self.wide = nn.Linear(8, 20)
        self.twin = nn.Linear(8, 20, bias=False)

    def forward(self, x):
        features = self.norm(self.depthwise(self.plain(x))).mean((2, 3))
        return self.wide(features) * self.twin(features) * self.table.sum()


def losses(network, optimiser, steps, first=0):
    for step in range(first, first + steps):
        torch.manual_seed(step)
        optimiser.zero_grad()
        (network(torch.randn(4, 3, 6, 6)) - 1).abs().mean().backward()
        optimiser.step()


def muon(network, **changes):
    settings = {"lr": 1e-2, "momentum": 0.95, "betas": (0.9, 0.99), "weight_decay": 0.0, **changes}
    return Muon(network, **settings)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    torch.manual_seed(1)
    matrices = torch.randn(3, *shape) * torch.tensor([1e-4, 1, 1e4])[:, None, None]
    flat = orthogonalised(matrices)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    clear = values > 0.05 * values[:, :1]  # what is far smaller needs more iterations
    along = torch.einsum("nik,nij,nkj->nk", left, flat, right)
    assert along[clear].min() > 0.6
    assert along[clear].max() < 1.3
    across = flat - torch.einsum("nik,nk,nkj->nij", left, along, right)
    assert across.abs().max() < 1e-3


def test_a_gradient_of_zeros_stays_one():
    assert not orthogonalised(torch.zeros(2, 3, 4)).any()


def test_matrices_are_those_of_plain_convolutions_and_linear_layers():
    network = Mixed()
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    assert [named[id(parameter)] for parameter in matrices_of(network)] == list(WITHOUT_ADAM)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_pytorchs_muon_and_adam(decay):
    ours, theirs = Mixed(), Mixed()
    matrices = [theirs.wide.weight, theirs.twin.weight]  # PyTorch's takes no convolutions
    others = [parameter for name, parameter in theirs.named_parameters() if name not in WITHOUT_ADAM]
    their_muon = torch.optim.Muon(
        matrices, lr=1e-2, momentum=0.95, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
    )
    their_adam = torch.optim.AdamW(others, lr=1e-2, betas=(0.9, 0.99), weight_decay=decay)
    mine = muon(ours, weight_decay=decay)
    torch.manual_seed(4)
    for _ in range(4):
        before = copy.deepcopy(ours.state_dict())
        theirs.load_state_dict(before)  # so that what differs does not add up
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        ours.plain.weight.grad = None
        for optimiser in (mine, their_muon, their_adam):
            optimiser.step()
        for name, value in ours.named_parameters():
            moved = theirs.get_parameter(name) - before[name]
            # PyTorch's iterates in bfloat16.
            near = 5e-2 if name in ("wide.weight", "twin.weight") else 1e-4
            off = (value - before[name] - moved).norm() / moved.norm().clamp(min=1e-9)
            assert off <= near, (name, off)
        assert torch.equal(ours.plain.weight, before["plain.weight"])


def test_a_convolution_steps_as_the_matrix_that_it_is():
    conv, linear = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(27, 8, bias=False)
    with torch.no_grad():
        linear.weight.copy_(conv.weight.flatten(1))
    torch.manual_seed(2)
    gradient = torch.randn(8, 3, 3, 3)
    conv.weight.grad, linear.weight.grad = gradient, gradient.flatten(1)
    for network in (conv, linear):
        muon(network).step()
    torch.testing.assert_close(conv.weight.flatten(1), linear.weight)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_resumed_it_goes_on_bit_for_bit(layout):
    config = LoopConfig(optimiser=OptimiserConfig(name="muon", learning_rate=1e-2)).optimiser
    whole = Mixed().to(memory_format=layout)
    losses(whole, build_optimiser(whole, config), 6)
    first = Mixed().to(memory_format=layout)
    optimiser = build_optimiser(first, config)
    losses(first, optimiser, 3)
    state = copy.deepcopy(optimiser.state_dict())
    second = Mixed().to(memory_format=layout)
    second.load_state_dict(first.state_dict())
    again = build_optimiser(second, config)
    # As a file holds them: contiguous, whatever they were.
    kept = {
        index: {name: value.contiguous() for name, value in moments.items()}
        for index, moments in state["state"].items()
    }
    again.load_state_dict({**again.state_dict(), "state": kept})
    losses(second, again, 3, first=3)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
