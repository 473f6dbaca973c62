"""What is RLFN's own: the keys of its checkpoints, pictures below 15 pixels, and another scale's start."""

import re

import pytest
import torch
from official import check_read, without

from relume.models.super_resolution.rlfn import RLFN, VARIANTS, from_official, tiny

NAMES = {
    "shallow": "conv_1", "close": "conv_2", "reconstruct": "upsampler.0", "local.0": "c1_r",
    "local.2": "c2_r", "local.4": "c3_r", "mix": "c5", "attend.reduce": "esa.conv1",
    "attend.shrink": "esa.conv2", "attend.look": "esa.conv3", "attend.keep": "esa.conv_f",
    "attend.expand": "esa.conv4",
}  # fmt: skip


def authors_names(network):
    """Return a network's state under the names that the authors' code gives it."""
    state = {}
    for name, value in network.state_dict().items():
        block = re.match(r"blocks\.(\d+)\.", name)
        layer, _, kind = name.removeprefix(block[0] if block else "").rpartition(".")
        state[(f"block_{int(block[1]) + 1}." if block else "") + f"{NAMES[layer]}.{kind}"] = value
    return state


@pytest.mark.parametrize("name", VARIANTS)
def test_the_authors_checkpoints_of_every_variant_are_recognised(name):
    network = RLFN(VARIANTS[name].config)
    check_read(from_official(authors_names(network)), network)


def test_other_checkpoints_are_left_to_others():
    state = authors_names(RLFN(tiny(VARIANTS["rlfn-x4"].config)))
    assert from_official(without(state, "esa")) is None


@torch.no_grad()
def test_small_sides_are_continued_mirrored_and_others_kept():
    torch.manual_seed(0)
    network = RLFN(tiny(VARIANTS["rlfn-x2"].config)).eval()
    low = torch.rand(1, 3, 9, 15)
    filled = torch.nn.functional.pad(low, (0, 0, 0, 6), "reflect")
    assert torch.allclose(network(low), network(filled)[..., : 9 * 2, :], atol=1e-6)
    wider = torch.nn.functional.pad(filled, (0, 1, 0, 0), "reflect")
    assert not torch.allclose(network(low), network(wider)[..., : 9 * 2, : 15 * 2], atol=1e-3)


@torch.no_grad()
def test_another_scale_starts_from_the_trunk_and_the_nearest_sub_pixels():
    torch.manual_seed(0)
    source, target = (RLFN(tiny(VARIANTS[f"rlfn-x{scale}"].config)).eval() for scale in (2, 4))
    assert target.start_from(source) == []
    low = torch.rand(1, 3, 8, 8)
    enlarged = source(low).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(target(low), enlarged, atol=1e-6)
