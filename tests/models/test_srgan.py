"""SRGAN's own: generators in every published layout, batch norms folded away, and what its range does."""

import re

import pytest
import torch
from official import check_read
from pydantic import ValidationError
from torch import nn

from relume.models.super_resolution.srgan import SRGAN, VARIANTS, SRGANConfig, from_official, tiny
from relume.nn.normed import NormedConv
from relume.recipes.srgan import recipe
from relume.train.objectives.weighted import AdversarialObjective


def lornatang(network, *, older):
    state = {}
    conv = "conv_block" if older else "conv"
    renames = {
        "shallow.": f"{conv}1.", "fuse.conv.": f"{conv}2.0.", "fuse.norm.": f"{conv}2.1.",
        "last.": f"{conv}3.",
        "blocks.": "trunk.", ".first.conv.": ".rcb.0.", ".first.norm.": ".rcb.1.", ".activate.": ".rcb.2.",
        ".second.conv.": ".rcb.3.", ".second.norm.": ".rcb.4.",
    }  # fmt: skip
    for name, value in network.state_dict().items():
        key = re.sub(r"^steps_up\.(\d+)\.", r"upsampling.\1.upsample_block.", name)
        for ours, theirs in renames.items():
            key = key.replace(ours, theirs)
        state[key] = value
    return state


def leftthomas(network):
    depth, ups = network.config.depth, len(network.factors)
    renames = {
        ".first.conv.": ".conv1.", ".first.norm.": ".bn1.", ".activate.": ".prelu.",
        ".second.conv.": ".conv2.", ".second.norm.": ".bn2.",
        "fuse.conv.": f"block{depth + 2}.0.", "fuse.norm.": f"block{depth + 2}.1.",
        "fuse.": f"block{depth + 2}.", "shallow.": "block1.", "last.": f"block{depth + 3}.{ups}.",
    }  # fmt: skip
    state = {}
    for name, value in network.state_dict().items():
        key = re.sub(r"^blocks\.(\d+)", lambda match: f"block{int(match[1]) + 2}", name)
        key = re.sub(r"^steps_up\.(\d+)\.0\.", rf"block{depth + 3}.\1.conv.", key)
        key = re.sub(r"^steps_up\.(\d+)\.2\.", rf"block{depth + 3}.\1.prelu.", key)
        for ours, theirs in renames.items():
            key = key.replace(ours, theirs)
        state[key] = value
    return state


@pytest.mark.parametrize("depth", [1, 12])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_recognised_in_the_layout_of_its_code(name, depth):
    network = SRGAN(tiny(VARIANTS[name].config).model_copy(update={"depth": depth}))
    states = (
        [leftthomas(network)]
        if network.config.output == "tanh"
        else [lornatang(network, older=older) for older in (False, True)]
    )
    for state in states:
        check_read(from_official(state), network)


def test_relatives_are_not_taken_for_it():
    state = lornatang(SRGAN(SRGANConfig(width=4, depth=1)), older=False)
    assert from_official({**state, "attention.weight": torch.zeros(1)}) is None
    assert from_official({"block1.0.weight": torch.zeros(1)}) is None


def disturb(network):
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "norm.bias")):
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
        elif name.endswith(("running_var", "norm.weight")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return network


@pytest.mark.parametrize("name", ["srresnet-x2", "srgan-five-x2", "srgan-five-norm-x2"])
@torch.no_grad()
def test_batch_norms_fold_into_the_convolutions(name):
    torch.manual_seed(0)
    network = disturb(SRGAN(tiny(VARIANTS[name].config))).eval()
    folded = network.folded()
    assert not [layer for layer in folded.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    low = torch.rand(2, 3, 7, 9)
    assert torch.allclose(folded(low), network(low), atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_normed_convolution_takes_over_a_merged_one(bias):
    torch.manual_seed(0)
    layer = disturb(NormedConv(4, 5, bias=bias)).eval()
    x = torch.rand(1, 4, 6, 6)
    merged, other = layer.merged(), nn.Conv2d(4, 5, 3, padding=1)
    assert torch.allclose(merged(x), layer(x), atol=1e-6)
    assert layer.absorb(other)
    assert torch.allclose(layer(x), other(x), atol=1e-5)
    assert not layer.absorb(nn.Conv2d(4, 6, 3, padding=1))


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@torch.no_grad()
def test_the_halo_is_the_reach(scale):
    torch.manual_seed(0)
    network = SRGAN(SRGANConfig(scale=scale, width=4, depth=1)).double().eval()
    network.last.weight.mul_(0.01)
    nn.init.constant_(network.last.bias, 0.5)
    halo = network.contract.halo
    low = torch.rand(1, 3, 3, 2 * halo + 3, dtype=torch.float64)
    centre = slice((halo + 1) * scale, (halo + 2) * scale)
    reference = network(low)[..., centre]
    for offset, reaches in ((halo + 1, False), (halo, True)):
        changed = low.clone()
        changed[..., halo + 1 + offset] += 1
        assert (network(changed)[..., centre] != reference).any() == reaches


def test_values_are_clamped_in_use_only():
    network = SRGAN(SRGANConfig(scale=2, width=4, depth=1))
    nn.init.constant_(network.last.bias, 2.0)
    low = torch.rand(2, 3, 5, 5)
    assert network.train()(low).max() > 1
    assert network.eval()(low).max() == 1


def test_srgan_is_judged_by_its_own_discriminator_and_srresnet_by_none():
    assert recipe("srresnet-x4").objective.name == "mse"
    objective = recipe("srgan-x4").objective
    assert objective.adversarial.discriminator.name == "srgan"
    assert isinstance(objective.build(), AdversarialObjective)


def test_other_scales_are_refused():
    with pytest.raises(ValidationError, match="power of 2"):
        SRGANConfig(scale=3)
