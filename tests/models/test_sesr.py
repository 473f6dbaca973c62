"""SESR's own: what collapsing is, where biases and skips go, the authors' layout, and how scales begin."""

import pytest
import torch
from official import check_read
from torch import nn
from torch.nn import functional as F

from relume.models.super_resolution.sesr import SESR, VARIANTS, LinearBlock, SESRConfig, from_official
from relume.nn.network import count_parameters
from relume.nn.surgery import apply_steps

# Of the training form, as the authors' code counts them.
TRAINED = {
    "sesr-m3-x2": 238_196, "sesr-m3-x4": 241_280, "sesr-m5-x2": 320_692, "sesr-m5-x4": 323_776,
    "sesr-m7-x2": 403_188, "sesr-m7-x4": 406_272, "sesr-m11-x2": 142_324, "sesr-m11-x4": 143_104,
    "sesr-xl-x2": 281_956, "sesr-xl-x4": 282_736,
}  # fmt: skip


def disturbed(network):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


def theirs(network):
    """Return a network's state under the names and in the layout that the authors' code has."""
    kind = "collapse" if network.config.biases == "kernel" else "block"
    # Row and column of the first of two shuffles by 2, then of the second.
    order = [4 * (2 * (y // 2) + x // 2) + 2 * (y % 2) + x % 2 for y in range(4) for x in range(4)]
    state = {}
    for name, value in network.state_dict().items():
        if name.startswith("activations."):
            state[name.replace("weight", "alpha")] = value[None, None]
            continue
        block, layer, part = name.rsplit(".", 2)
        if (block, layer) == ("expand", "project") and network.config.scale == 4:
            value = torch.zeros_like(value).index_copy_(0, torch.tensor(order), value)
        block = {"shallow": "input_block", "expand": "output_block"}.get(block) or f"linear_{block}"
        number = ("expand", "project").index(layer)
        if part == "weight":
            part, value = "kernel", value.permute(2, 3, 1, 0)
        state[f"{block}.{kind}.{number}.{part}"] = value
    return state


@pytest.mark.parametrize("biases", ["kernel", "output"])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_recognised_in_the_authors_layout(name, biases):
    network = SESR(VARIANTS[name].config.model_copy(update={"biases": biases}))
    check_read(from_official(theirs(network)), network)


def test_relatives_are_not_taken_for_it():
    state = theirs(SESR(SESRConfig(width=3, depth=1, expansion=4)))
    assert from_official({**state, "linear_blocks.0.collapse.2.kernel": torch.zeros(1)}) is None
    assert from_official({"activations.0.alpha": torch.zeros(1)}) is None


@pytest.mark.parametrize("name", VARIANTS)
def test_the_training_form_has_the_authors_parameters(name):
    with torch.device("meta"):
        assert count_parameters(SESR(VARIANTS[name].config)) == TRAINED[name]


@pytest.mark.parametrize("biases", ["kernel", "output"])
@pytest.mark.parametrize("skips", [True, False])
@torch.no_grad()
def test_a_collapsed_block_is_two_convolutions(biases, skips):
    torch.manual_seed(0)
    skip = torch.arange(4) if skips else None
    block = disturbed(LinearBlock(4, 4, size=3, expansion=9, biases=biases, skip=skip))
    x = torch.rand(2, 4, 6, 7)
    if biases == "kernel":
        # To each entry of the wide kernel its channel's bias, and of the product the other.
        wide = block.expand.weight + block.expand.bias[:, None, None, None]
        entry = F.conv2d(x, torch.ones(4, 4, 3, 3), padding=1) * block.project.bias[:, None, None]
        expected = F.conv2d(F.conv2d(x, wide, padding=1), block.project.weight) + entry
    else:
        expected = block.project(F.conv2d(x, block.expand.weight, block.expand.bias, padding=1))
    expected = expected + x if skips else expected
    assert torch.allclose(block(x), expected, atol=1e-5)
    assert torch.allclose(block.merged()(x), expected, atol=1e-5)
    assert (block.merged().bias is None) == (biases == "kernel")


@pytest.mark.parametrize("biases", ["kernel", "output"])
@torch.no_grad()
def test_a_block_takes_over_a_collapsed_one(biases):
    torch.manual_seed(0)
    block = disturbed(LinearBlock(4, 4, size=3, expansion=9, biases=biases, skip=torch.arange(4)))
    wanted = nn.Conv2d(4, 4, 3, padding=1, bias=biases == "output")
    assert block.absorb(wanted)
    x = torch.rand(1, 4, 5, 5)
    assert torch.allclose(block(x), wanted(x), atol=1e-5)
    assert not block.absorb(nn.Conv2d(4, 4, 3, padding=1, bias=biases == "kernel"))
    narrow = LinearBlock(4, 4, size=3, expansion=3, biases=biases, skip=None)
    assert not narrow.absorb(wanted)


@pytest.mark.parametrize("collapsed", [True, False])
@torch.no_grad()
def test_another_scale_starts_from_the_trunk_and_the_nearest_sub_pixels(collapsed):
    torch.manual_seed(0)
    source, target = (
        disturbed(SESR(SESRConfig(scale=scale, depth=2, expansion=20))).train() for scale in (2, 4)
    )
    if collapsed:
        apply_steps(source, ["reparameterise"])
    assert target.start_from(source) == []
    low = torch.rand(1, 1, 6, 7)
    nearest = source(low).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(target(low), nearest, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 4])
@torch.no_grad()
def test_the_halo_is_the_reach(scale):
    torch.manual_seed(0)
    network = disturbed(SESR(SESRConfig(scale=scale, width=4, depth=2, expansion=6))).double().train()
    halo = network.contract.halo
    low = torch.rand(1, 1, 3, 2 * halo + 3, dtype=torch.float64)
    centre = slice((halo + 1) * scale, (halo + 2) * scale)
    reference = network(low)[..., centre]
    for offset, reaches in ((halo + 1, False), (halo, True)):
        changed = low.clone()
        changed[..., halo + 1 + offset] += 1
        assert (network(changed)[..., centre] != reference).any() == reaches


def test_values_are_clamped_in_use_only():
    network = SESR(SESRConfig(width=4, depth=1, expansion=6))
    low = torch.full((1, 1, 5, 5), 3.0)
    assert network.train()(low).max() > 1
    assert network.eval()(low).max() == 1
