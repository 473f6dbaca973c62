"""What is BSRN's own: the keys of its two forms and four convolutions, and another scale's start."""

import re

import pytest
import torch
from official import check_read
from pydantic import ValidationError

from relume.models.super_resolution.bsrn import BSRN, VARIANTS, BSRNConfig, from_official, tiny

NAMES = {
    "shallow": "fea_conv", "trunk.fuse": "c1", "trunk.close": "c2",
    "reconstruct": "upsampler.upsampleOneStep.0",
    "distillation.last": "c4", "distillation.fuse": "c5", "distillation.distil.0": "c1_d",
    "distillation.distil.1": "c2_d", "distillation.distil.2": "c3_d", "distillation.refine.0": "c1_r",
    "distillation.refine.1": "c2_r", "distillation.refine.2": "c3_r", "weigh.squeeze": "cca.conv_du.0",
    "weigh.expand": "cca.conv_du.2", "weigh.mix": "conv_out", "attend.reduce": "esa.conv1",
    "attend.shrink": "esa.conv2", "attend.look.0": "esa.conv_max", "attend.look.2": "esa.conv3",
    "attend.look.4": "esa.conv3_", "attend.keep": "esa.conv_f", "attend.expand": "esa.conv4",
}  # fmt: skip
PARTS = {"blueprint": ("pw", "dw"), "subspace": ("pw1", "pw2", "dw"), "depthwise": ("dw", "pw"), "plain": ()}


def authors_names(network):
    """Return a network's state under the names, and in the shapes, that the authors' code gives it."""
    config = network.config
    state = {}
    for name, value in network.state_dict().items():
        block = re.match(r"trunk\.blocks\.(\d+)\.", name)
        prefix = f"B{int(block[1]) + 1}." if block else ""
        layer, _, kind = name.removeprefix(block[0] if block else "").rpartition(".")
        if kind == "weights":
            state[f"{prefix}cw"] = value.reshape(1, -1)
            continue
        if layer not in NAMES:  # a part of a convolution that is taken apart
            layer, _, index = layer.rpartition(".")
            kind = f"{PARTS[config.convolution][int(index)]}.{kind}"
        linear = config.form == "small" and value.ndim == 4 and value.shape[-1] == 1
        state[f"{prefix}{NAMES[layer]}.{kind}"] = value[:, :, 0, 0] if linear else value
    return state


@pytest.mark.parametrize("name", VARIANTS)
def test_the_authors_checkpoints_of_every_variant_are_recognised(name):
    network = BSRN(VARIANTS[name].config)
    check_read(from_official(authors_names(network)), network)


@pytest.mark.parametrize("convolution", PARTS)
def test_the_convolutions_that_the_paper_compares_are_recognised(convolution):
    config = tiny(BSRNConfig(scale=3, convolution=convolution))
    network = BSRN(config)
    found = from_official(authors_names(network))
    # Any share will do that gives the same layers.
    check_read(found, network, config=config.model_copy(update={"share": found.config.share}))


@pytest.mark.parametrize(("width", "share"), [(30, 0.1), (31, 0.5), (25, 0.25), (29, 0.71), (16, 1.0)])
def test_any_share_of_a_subspace_gives_the_same_layers(width, share):
    config = BSRNConfig(width=width, blocks=1, narrow=7, convolution="subspace", share=share)
    found = from_official(authors_names(BSRN(config)))
    BSRN(found.config).load_state_dict(dict(found.state))


@torch.no_grad()
def test_another_scale_starts_from_the_trunk_and_the_nearest_sub_pixels():
    torch.manual_seed(0)
    source, target = (BSRN(tiny(VARIANTS[f"bsrn-s-x{scale}"].config)).eval() for scale in (2, 4))
    assert target.start_from(source) == []
    low = torch.rand(1, 3, 8, 8)
    enlarged = source(low).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(target(low), enlarged, atol=1e-6)


def test_the_small_form_has_one_kind_of_convolution():
    with pytest.raises(ValidationError, match="blueprint convolutions"):
        BSRNConfig(form="small", convolution="plain")
