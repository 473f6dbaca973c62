"""RRDBNet's own: checkpoints in each of the published layouts, folded squares, refused settings."""

import re

import pytest
import torch
from official import check_read
from pydantic import ValidationError

from relume.models.super_resolution.rrdbnet import VARIANTS, RRDBNet, RRDBNetConfig, from_official, tiny

SMALL = RRDBNetConfig(width=6, growth=3, depth=2)


def theirs(network, layout):
    """Return a network's state under the names that one of the published layouts gives it."""
    ups = len(network.factors)
    names = {
        "esrgan": ("conv_first", "trunk_conv", "upconv{}", "HRconv", "conv_last"),
        "basicsr": ("conv_first", "conv_body", "conv_up{}", "conv_hr", "conv_last"),
        "first": ("model.0", f"model.1.sub.{network.config.depth}", "", f"model.{2 + 3 * ups}",
                  f"model.{4 + 3 * ups}"),
    }[layout]  # fmt: skip
    block = {
        "esrgan": "RRDB_trunk.{}.RDB{}.conv{}.{}",
        "basicsr": "body.{}.rdb{}.conv{}.{}",
        "first": "model.1.sub.{}.RDB{}.conv{}.0.{}",
    }[layout]
    state = {}
    for name, value in network.state_dict().items():
        layer, _, part = name.rpartition(".")
        if match := re.fullmatch(r"blocks\.(\d+)\.(\d)\.(?:grow\.(\d)|merge)", layer):
            convolution = 5 if match[3] is None else int(match[3]) + 1
            state[block.format(match[1], int(match[2]) + 1, convolution, part)] = value
        elif match := re.fullmatch(r"steps_up\.(\d)", layer):
            index = int(match[1])
            key = f"model.{3 + 3 * index}" if layout == "first" else names[2].format(index + 1)
            state[f"{key}.{part}"] = value
        else:
            state[f"{names[('shallow', 'fuse', '', 'refine', 'last').index(layer)]}.{part}"] = value
    return state


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        *(("basicsr", {"scale": 4 // folding, "folding": folding}) for folding in (1, 2, 4)),
        *((layout, {"scale": scale}) for layout in ("esrgan", "first") for scale in (1, 2, 4, 8)),
        ("first", {"scale": 2, "folding": 2, "channels": 1}),
    ],
)
def test_every_published_layout_is_recognised(layout, settings):
    network = RRDBNet(SMALL.model_copy(update=settings))
    state = theirs(network, layout)
    assert len(state) == len(network.state_dict())
    for prefix in ("", "model."):
        check_read(from_official({key.removeprefix(prefix): value for key, value in state.items()}), network)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_a_layout_that_shows_all_of_it(name):
    network = RRDBNet(tiny(VARIANTS[name].config))
    layout = "esrgan" if VARIANTS[name].config == RRDBNetConfig(scale=2) else "basicsr"
    assert from_official(theirs(network, layout)).config == network.config


def test_relatives_and_broken_files_are_told_apart():
    state = theirs(RRDBNet(SMALL), "first")
    assert from_official({**state, "model.1.sub.0.RDB1.conv1x1.weight": torch.zeros(1)}) is None
    del state["model.0.weight"]
    with pytest.raises(KeyError):
        from_official(state)


@torch.no_grad()
def test_sides_that_folding_does_not_divide_are_continued_mirrored():
    torch.manual_seed(0)
    network = RRDBNet(RRDBNetConfig(scale=1, folding=4, width=4, growth=2, depth=1)).eval()
    low = torch.rand(1, 3, 8, 8)
    part = low[..., :6, :7]
    mirrored = torch.nn.functional.pad(part, (0, 1, 0, 2), mode="reflect")
    assert torch.allclose(network(part), network(mirrored)[..., :6, :7], atol=1e-6)
    assert torch.equal(network(mirrored), network.last(_before_last(network, mirrored)))
    assert network.contract.halo is None


def _before_last(network, x):
    x = network.shallow(torch.nn.functional.pixel_unshuffle(x, 4))
    x = x + network.fuse(network.blocks(x))
    for step in network.steps_up:
        x = torch.nn.functional.leaky_relu(step(x.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)
    return torch.nn.functional.leaky_relu(network.refine(x), 0.2)


@pytest.mark.parametrize("settings", [{"scale": 3}, {"scale": 2, "folding": 3}])
def test_other_scales_are_refused(settings):
    with pytest.raises(ValidationError, match="power of 2"):
        RRDBNetConfig(**settings)
