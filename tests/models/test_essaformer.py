"""What is ESSAformer's own: forms of checkpoints, attention by correlation, refused settings."""

import re

import pytest
import torch
from official import check_read
from pydantic import ValidationError
from torch.nn import functional as F

from relume.infer.engines.base import Place
from relume.infer.restorer import Restorer
from relume.models.super_resolution.essaformer import (
    VARIANTS,
    ESSAformer,
    ESSAformerConfig,
    SpectralAttention,
    from_official,
)


def authors_names(network):
    """Return a network's state under the names that the authors' file gives it."""
    renames = (
        (r"^shallow\.", "conv_first."), (r"^reconstruct\.", "conv_last."),
        (r"^enlarge\.", "blockup.convupsample."), (r"^shrink\.", "blockup.convdownsample."),
        (r"^refine_high\.mix\.", "blockup.convup.convu."), (r"^refine_low\.mix\.", "blockup.convdown.convd."),
        (r"^refine_high\.", "blockup.convup."), (r"^refine_low\.", "blockup.convdown."),
        (r"\.attention\.qkv\.", ".attn.lnqkv."), (r"\.attention\.project\.", ".attn.ln."),
    )  # fmt: skip
    state = {}
    for name, value in network.state_dict().items():
        key = name
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        state[key] = value
    return state


CONFIGS = {
    **{name: variant.config for name, variant in VARIANTS.items()},
    **{f"x{scale}": ESSAformerConfig(scale=scale, bands=7, width=36) for scale in (2, 3, 4, 8, 16)},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_authors_checkpoints_are_recognised_with_their_settings(name):
    with torch.device("meta" if name in VARIANTS else "cpu"):
        network = ESSAformer(CONFIGS[name])
    check_read(from_official(authors_names(network)), network)


def test_relatives_are_not_taken_for_it():
    assert from_official({"blockup.convupsample.0.weight": torch.zeros(3), "conv_first.weight": 0}) is None


@torch.no_grad()
def test_attention_is_the_correlation_of_every_pixel_with_every_other():
    torch.manual_seed(0)
    layer = SpectralAttention(6).double()
    x = torch.randn(2, 20, 6, dtype=torch.float64)
    query, key, value = layer.qkv(x).split(6, 2)
    query, key = ((part - part.mean(2, keepdim=True)) ** 2 for part in (query, key))
    query, key = (part / (part.sum(2, keepdim=True) + 1e-7) for part in (query, key))
    likeness = F.normalize(query, dim=2) @ F.normalize(key, dim=1).transpose(1, 2)  # every pixel with every
    plain = layer.project(value + likeness @ value / 20**0.5)
    assert (layer(x) - plain).abs().max() <= 1e-6


@torch.no_grad()
def test_a_cube_of_any_number_of_bands_runs_and_a_picture_is_refused():
    torch.manual_seed(0)
    network = ESSAformer(ESSAformerConfig(scale=3, bands=198, width=9)).eval()
    restorer = Restorer(network, name="cube", engine="torch", place=Place())
    cube = torch.rand(1, 198, 4, 5)
    assert torch.allclose(restorer.run(cube), network(cube), atol=1e-6)
    with pytest.raises(ValueError, match="picture of 3 channels does not fit a model of 198"):
        restorer.run(torch.rand(1, 3, 4, 5))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale": 3}, "multiple of 9"),
        ({"width": 18}, "multiple of 4"),
        ({"scale": 5}, "scale"),
        ({"dropout": 1.0}, "less than 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        ESSAformerConfig(**settings)
