"""CARN's own: checkpoints of its authors with groups and scales of each kind, and refused settings."""

import re

import pytest
import torch
from official import check_read
from pydantic import ValidationError
from torch.nn import functional as F

from relume.models.super_resolution.carn import CARN, VARIANTS, CARNConfig, from_official, tiny

_RENAMES = (
    (r"^centre\.", "sub_mean.shifter."),
    (r"^restore\.", "add_mean.shifter."),
    (r"^body\.entry\.", "entry."),
    (
        r"^body\.cascade\.units\.(\d)\.units\.(\d)\.layers\.",
        lambda at: f"b{int(at[1]) + 1}.b{int(at[2]) + 1}.body.",
    ),
    (
        r"^body\.cascade\.units\.(\d)\.fusions\.(\d)\.",
        lambda at: f"b{int(at[1]) + 1}.c{int(at[2]) + 1}.body.",
    ),
    (r"^body\.cascade\.fusions\.(\d)\.", lambda at: f"c{int(at[1]) + 1}.body."),
)


def authors_state(network):
    """Return a network's state as the authors' file has it."""
    one = len(network.config.scales) == 1
    state = {}
    for name, value in network.state_dict().items():
        key = re.sub(r"^upsamplers\.x(\d)\.", "upsample.up.body." if one else r"upsample.up\1.body.", name)
        for pattern, replacement in _RENAMES:
            key = re.sub(pattern, replacement, key)
        state[key] = value
    return state


@pytest.mark.parametrize("groups", [None, 2, 4])
@pytest.mark.parametrize("scales", [(2,), (3,), (4,), (2, 3, 4)])
@pytest.mark.parametrize("name", ["carn-x4", "carn-m-x4"])
def test_every_number_of_groups_is_read_for_each_scale(name, scales, groups):
    config = tiny(VARIANTS[name].config)
    groups = None if groups == config.body.groups else groups
    network = CARN(
        config.model_copy(update={"scale": scales[-1], "scales": scales, "upsampler_groups": groups})
    )
    check_read(from_official(authors_state(network)), network)


@pytest.mark.parametrize("name", [name for name in VARIANTS if "bn" not in name])
def test_the_authors_checkpoint_of_every_variant_is_recognised(name):
    with torch.device("meta"):  # numbers that nobody looks at
        network = CARN(VARIANTS[name].config)
    # Which of its scales is wanted, the user says.
    read = VARIANTS[name].config.model_copy(update={"scale": 4})
    check_read(from_official(authors_state(network)), network, config=read)


@torch.no_grad()
def test_groups_of_the_upsampler_leave_the_trunk_as_it_is():
    torch.manual_seed(0)
    config = tiny(VARIANTS["carn-x2"].config).model_copy(update={"upsampler_groups": 2})
    network = CARN(config).eval()
    assert {layer.groups for layer in network.body.modules() if isinstance(layer, torch.nn.Conv2d)} == {1}
    low = torch.rand(1, 3, 5, 6)
    features = network.body(network.centre(low))
    (step,) = [layer for layer in network.upsamplers["x2"] if isinstance(layer, torch.nn.Conv2d)]
    halves = zip(features.chunk(2, 1), step.weight.chunk(2), step.bias.chunk(2), strict=True)
    wide = torch.cat([F.conv2d(*half, padding=1) for half in halves], 1)
    wanted = network.restore(network.exit(F.pixel_shuffle(F.relu(wide), 2)))
    assert (network(low) - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"upsampler_groups": 5}, "multiple of upsampler_groups 5"),
        ({"scale": 2, "scales": (3, 4)}, "no upsampler for scale 2"),
        ({"scale": 8}, "scale"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        CARNConfig(**settings)
