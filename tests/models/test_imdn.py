"""What is IMDN's own: keys of its four forms, its grid of pixels, flat pictures, another scale's start."""

import re

import pytest
import torch
from official import check_read, without
from pydantic import ValidationError
from safetensors.torch import save_file

from relume.core.checkpoints import unprefixed
from relume.models import zoo
from relume.models.super_resolution.imdn import IMDN, VARIANTS, IMDNConfig, from_official, tiny


def authors_names(network):
    """Return a network's state under the names that the authors' code gives it."""
    form, blocks = network.config.form, network.config.blocks
    fusion = "c7" if form == "rte" else "c5"
    block = {"rtc": "model.1.sub.{0}.", "rte": "block{1}."}.get(form, "IMDB{1}.")
    ends = {"shallow.": "fea_conv.", "reconstruct.": "upsampler.0.", "trunk.close.": "LR_conv."}
    if form == "rtc":
        close = f"model.1.sub.{blocks}."
        ends = {"shallow.": "model.0.", "reconstruct.": "model.2.", "trunk.close.": close}
    ends |= {"trunk.fuse.": "c.0."}
    state = {}
    for name, value in network.state_dict().items():
        for ours, theirs in ends.items():
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        if match := re.match(r"trunk\.blocks\.(\d+)\.(.*)", name):
            index, rest = int(match[1]), match[2]
            rest = re.sub(r"^steps\.(\d)", lambda match: f"c{int(match[1]) + 1}", rest)
            rest = rest.replace("fuse.", f"{fusion}.").replace("attend.squeeze", "cca.conv_du.0")
            rest = rest.replace("attend.expand", "cca.conv_du.2")
            name = block.format(index, index + 1) + rest
        state[name] = value
    return state


@pytest.mark.parametrize("name", VARIANTS)
def test_the_authors_checkpoints_of_every_form_are_recognised(name):
    network = IMDN(tiny(VARIANTS[name].config))
    state = authors_names(network)
    # As they are, and as they are unwrapped: all keys of one form begin as a wrapper's would.
    for keys in (state, unprefixed({f"module.{key}": value for key, value in state.items()})):
        # Only blocks with attention show how narrow it is.
        shown = {} if network.config.attends else {"narrow": IMDNConfig().narrow}
        check_read(from_official(keys), network, config=network.config.model_copy(update=shown))


def test_other_checkpoints_are_left_to_others():
    state = authors_names(IMDN(tiny(VARIANTS["imdn-x2"].config)))
    assert from_official(without(state, "cca")) is None


@pytest.mark.parametrize("name", VARIANTS)
def test_keys_of_a_wrapped_network_are_unwrapped_in_a_safetensors_file_as_well(name, tmp_path):
    network = IMDN(tiny(VARIANTS[name].config))
    path = tmp_path / "wrapped.safetensors"
    save_file({f"module.{key}": value for key, value in authors_names(network).items()}, path)
    loaded, header = zoo.load(path)
    assert header.model == "imdn"
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in network.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize(("name", "multiple"), [("imdn-rte-x2", 2), ("imdn-as", 4)])
def test_sides_are_continued_mirrored(name, multiple):
    torch.manual_seed(0)
    network = IMDN(tiny(VARIANTS[name].config)).eval()
    scale = network.config.scale
    low = torch.rand(1, 3, 7, 9)
    whole = torch.nn.functional.pad(low, (0, -9 % multiple, 0, -7 % multiple), "reflect")
    assert torch.allclose(network(low), network(whole)[..., : 7 * scale, : 9 * scale], atol=1e-6)


@torch.no_grad()
def test_another_scale_starts_from_the_trunk_and_the_nearest_sub_pixels():
    torch.manual_seed(0)
    source, target = (IMDN(tiny(VARIANTS[f"imdn-x{scale}"].config)).eval() for scale in (2, 4))
    assert target.start_from(source) == []
    low = torch.rand(1, 3, 8, 8)
    enlarged = source(low).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(target(low), enlarged, atol=1e-6)


def test_what_is_flat_ends_no_training():
    network = IMDN(tiny(VARIANTS["imdn-x2"].config))
    network(torch.rand(1, 3, 1, 1)).sum().backward()  # one pixel: no contrast at all
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_a_width_without_quarters_is_refused():
    with pytest.raises(ValidationError, match="multiple of 4"):
        IMDNConfig(width=30)
