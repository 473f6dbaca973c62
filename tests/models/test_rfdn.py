"""What is RFDN's own: the keys of its two forms, pictures below 15 pixels, and another scale's start."""

import re

import pytest
import torch
from official import check_read

from relume.models.super_resolution.rfdn import RFDN, VARIANTS, from_official, tiny

NAMES = {
    "shallow": "fea_conv", "reconstruct": "upsampler.0", "trunk.fuse": "c.0", "trunk.close": "LR_conv",
    "distillation.last": "c4", "distillation.fuse": "c5", "distillation.distil.0": "c1_d",
    "distillation.distil.1": "c2_d", "distillation.distil.2": "c3_d", "distillation.refine.0": "c1_r",
    "distillation.refine.1": "c2_r", "distillation.refine.2": "c3_r",
}  # fmt: skip
ATTENTION = {
    "contrast": {"attend.squeeze": "cca.conv_du.0", "attend.expand": "cca.conv_du.2"},
    "spatial": {
        "attend.reduce": "esa.conv1", "attend.shrink": "esa.conv2", "attend.look.0": "esa.conv_max",
        "attend.look.2": "esa.conv3", "attend.look.4": "esa.conv3_", "attend.keep": "esa.conv_f",
        "attend.expand": "esa.conv4",
    },
}  # fmt: skip


def authors_names(network):
    """Return a network's state under the names that the authors' code gives it."""
    names = NAMES | ATTENTION[network.config.attention]
    state = {}
    for name, value in network.state_dict().items():
        block = re.match(r"trunk\.blocks\.(\d+)\.", name)
        layer, _, kind = name.removeprefix(block[0] if block else "").rpartition(".")
        state[(f"B{int(block[1]) + 1}." if block else "") + f"{names[layer]}.{kind}"] = value
    return state


@pytest.mark.parametrize("name", VARIANTS)
def test_the_authors_checkpoints_of_every_variant_are_recognised(name):
    network = RFDN(VARIANTS[name].config)
    check_read(from_official(authors_names(network)), network)


def test_other_checkpoints_are_left_to_others():
    state = authors_names(RFDN(tiny(VARIANTS["rfdn-aim-x4"].config)))
    assert from_official({key: value for key, value in state.items() if not key.startswith("c.0")}) is None


@torch.no_grad()
def test_small_sides_are_continued_mirrored():
    torch.manual_seed(0)
    network = RFDN(tiny(VARIANTS["rfdn-aim-x4"].config)).eval()
    low = torch.rand(1, 3, 14, 20)
    filled = torch.nn.functional.pad(low, (0, 0, 0, 1), "reflect")
    assert torch.allclose(network(low), network(filled)[..., : 14 * 4, :], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("form", ["rfdn", "rfdn-l"])
def test_another_scale_starts_from_the_trunk_and_the_nearest_sub_pixels(form):
    torch.manual_seed(0)
    source, target = (RFDN(tiny(VARIANTS[f"{form}-x{scale}"].config)).eval() for scale in (2, 4))
    assert target.start_from(source) == []
    low = torch.rand(1, 3, 8, 8)
    enlarged = source(low).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(target(low), enlarged, atol=1e-6)
