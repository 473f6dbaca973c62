"""EDSR's own: checkpoints of the authors' code and of BasicSR's, and what they show."""

import re

import pytest
import torch
from pydantic import ValidationError

from relume.models.super_resolution.edsr import EDSR, VARIANTS, EDSRConfig, from_official, tiny


def theirs(network, *, own):
    """Return a network's state under the names of the authors' own layout, or of BasicSR's."""
    depth = network.config.depth
    names = (
        {"shallow": "head.0", "first": "body.0", "second": "body.2", "fuse": f"body.{depth}",
         "last": "tail.1"}
        if own
        else {"shallow": "conv_first", "first": "conv1", "second": "conv2", "fuse": "conv_after_body",
              "last": "conv_last"}
    )  # fmt: skip
    state = {}
    for name, value in network.state_dict().items():
        layer, _, part = name.rpartition(".")
        if match := re.fullmatch(r"blocks\.(\d+)\.(\w+)", layer):
            layer = f"body.{match[1]}.{names[match[2]]}"
        elif match := re.fullmatch(r"steps_up\.(\d)", layer):
            layer = f"{'tail.0' if own else 'upsample'}.{2 * int(match[1])}"
        else:
            layer = names[layer]
        state[f"{layer}.{part}"] = value
    if own:
        for sign, layer in ((-1, "sub_mean"), (1, "add_mean")):
            channels = network.config.channels
            state[f"{layer}.weight"] = torch.eye(channels)[..., None, None]
            state[f"{layer}.bias"] = sign * network.config.image_range * torch.tensor(network.config.mean)
    return state


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_both_layouts_of_every_variant_are_recognised(name, own):
    config = tiny(VARIANTS[name].config)
    network = EDSR(config)
    found = from_official(theirs(network, own=own))
    assert found.config.override({"mean": config.mean}, where="test") == config.model_copy(
        update={"residual_scale": 1.0}
    )
    assert found.config.mean == pytest.approx(config.mean, abs=1e-6)
    assert found.state.keys() == network.state_dict().keys()
    assert all(torch.equal(found.state[key], value) for key, value in network.state_dict().items())


def test_a_wide_network_weighs_its_residuals():
    network = EDSR(EDSRConfig(scale=2, width=256, depth=1, residual_scale=0.1))
    assert from_official(theirs(network, own=False)).config == network.config


def test_range_and_mean_are_read_off_the_authors_convolution():
    network = EDSR(EDSRConfig(width=4, depth=1, image_range=1.0, mean=(0.5, 0.25, 0.125)))
    assert from_official(theirs(network, own=True)).config == network.config


@torch.no_grad()
def test_the_authors_network_of_bytes_is_the_same_function():
    torch.manual_seed(0)
    network = EDSR(EDSRConfig(scale=2, width=4, depth=1)).eval()
    low = torch.rand(1, 3, 5, 6)
    mean = 255 * torch.tensor(network.config.mean)[:, None, None]
    shallow = network.shallow(255 * low - mean)
    deep = network.fuse(network.blocks(shallow)) + shallow
    bytes_ = network.last(torch.nn.functional.pixel_shuffle(network.steps_up[0](deep), 2)) + mean
    assert torch.allclose(network(low) * 255, bytes_, atol=1e-3)


def test_relatives_are_not_taken_for_it():
    state = theirs(EDSR(EDSRConfig(width=4, depth=1)), own=True)
    assert from_official({**state, "body.0.body.3.conv_du.0.weight": torch.zeros(1)}) is None
    assert from_official({"body.0.conv1.weight": torch.zeros(1)}) is None


@pytest.mark.parametrize(
    ("settings", "says"), [({"scale": 5}, "power of 2 or by 3"), ({"channels": 1}, "each of 1 channels")]
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        EDSRConfig(**settings)
