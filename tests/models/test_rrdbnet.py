"""RRDBNet's own: checkpoints in each of the published layouts, folded squares, refused settings."""

import re

import pytest
import torch
from official import check_read
from pydantic import ValidationError
from torch.nn import functional as F

from relume.models.super_resolution.rrdbnet import (
    OFFICIAL_SETTINGS,
    VARIANTS,
    RRDBNet,
    RRDBNetConfig,
    from_official,
    tiny,
)

SMALL = RRDBNetConfig(width=6, growth=3, depth=2)


def theirs(network, layout):
    """Return a network's state under the names that one of the published layouts gives it."""
    ups = len(network.factors)
    shuffled = network.config.enlarging == "shuffle"
    numbered = ("model.0", f"model.1.sub.{network.config.depth}", "", f"model.{2 + 3 * ups}",
                f"model.{4 + 3 * ups}")  # fmt: skip
    names = {
        "esrgan": ("conv_first", "trunk_conv", "upconv{}", "HRconv", "conv_last"),
        "basicsr": ("conv_first", "conv_body", "conv_up{}", "conv_hr", "conv_last"),
        "first": numbered,
        "kair": numbered,
    }[layout]  # fmt: skip
    block = {
        "esrgan": "RRDB_trunk.{}.RDB{}.conv{}.{}",
        "basicsr": "body.{}.rdb{}.conv{}.{}",
        "first": "model.1.sub.{}.RDB{}.conv{}.0.{}",
        "kair": "model.1.sub.{}.RDB{}.conv{}.0.{}",
    }[layout]
    state = {}
    for name, value in network.state_dict().items():
        layer, _, part = name.rpartition(".")
        if match := re.fullmatch(r"blocks\.(\d+)\.(\d)\.(?:grow\.(\d)|merge)", layer):
            convolution = 5 if match[3] is None else int(match[3]) + 1
            key = block.format(match[1], int(match[2]) + 1, convolution, part)
            state[key.replace("conv5.0.", "conv5.") if layout == "kair" else key] = value
        elif match := re.fullmatch(r"steps_up\.(\d)", layer):
            index = int(match[1])
            # A shuffle comes behind its convolution, nearest neighbours before it.
            key = f"model.{3 - shuffled + 3 * index}" if names == numbered else names[2].format(index + 1)
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
        *(("kair", {"scale": scale}) for scale in (1, 2, 4)),
        *(
            (layout, {"scale": scale, "enlarging": "shuffle"})
            for layout in ("first", "kair")
            for scale in (2, 3, 4)
        ),
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


def test_nearest_neighbours_by_three_are_told_by_the_user():
    network = RRDBNet(SMALL.model_copy(update={"scale": 3}))
    found = from_official(theirs(network, "kair"))
    assert found.config == network.config.model_copy(update={"scale": 2})
    assert OFFICIAL_SETTINGS == {"upscale": "scale"}
    RRDBNet(found.config.override({"scale": 3}, where="a test")).load_state_dict(dict(found.state))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("enlarging", ["nearest", "shuffle"])
@torch.no_grad()
def test_each_way_of_enlarging_sees_as_far_as_its_halo_and_no_farther(enlarging, scale):
    torch.manual_seed(0)
    network = RRDBNet(RRDBNetConfig(scale=scale, enlarging=enlarging, width=4, growth=2, depth=1)).double()
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    halo = network.contract.halo
    low = torch.rand(1, 3, 2 * halo + 3, 2 * halo + 3, dtype=torch.float64)
    centre = slice((halo + 1) * scale, (halo + 2) * scale)
    before = network(low)[..., centre, centre]
    for offset, reaches in ((halo + 1, False), (halo, True)):
        changed = low.clone()
        changed[..., halo + 1 + offset, halo + 1] += 1
        assert ((network(changed)[..., centre, centre] - before).abs().max() > 0) == reaches


@torch.no_grad()
def test_a_shuffle_comes_before_the_activation_and_after_its_convolution():
    torch.manual_seed(0)
    network = RRDBNet(RRDBNetConfig(scale=3, enlarging="shuffle", width=4, growth=2, depth=1)).eval()
    low = torch.rand(1, 3, 5, 6)
    shallow = network.shallow(low)
    deep = shallow + network.fuse(network.blocks(shallow))
    enlarged = F.leaky_relu(F.pixel_shuffle(network.steps_up[0](deep), 3), 0.2)
    assert torch.equal(network(low), network.last(F.leaky_relu(network.refine(enlarged), 0.2)))


@pytest.mark.parametrize("settings", [{"scale": 6}, {"scale": 2, "folding": 3}])
def test_other_scales_are_refused(settings):
    with pytest.raises(ValidationError, match="power of 2"):
        RRDBNetConfig(**settings)
