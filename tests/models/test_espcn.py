"""ESPCN's own: which colours a checkpoint takes, and how one scale's weights begin another's training."""

import pytest
import torch
from official import check_read

from relume.models.super_resolution.espcn import ESPCN, ESPCNConfig, from_official

LAYOUTS = {
    "yjn870": {"extract": "first_part.0", "refine": "first_part.2", "expand": "last_part.0"},
    "Lornatang": {"extract": "feature_maps.0", "refine": "feature_maps.2", "expand": "sub_pixel.0"},
}


def theirs(network, layout="yjn870"):
    names = LAYOUTS[layout]
    return {
        ".".join([names[layer], part]): value
        for (layer, part), value in ((key.split("."), value) for key, value in network.state_dict().items())
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "luma"), [(1, True), (3, False)])
def test_a_checkpoint_of_one_channel_takes_luma(channels, luma, layout):
    network = ESPCN(ESPCNConfig(scale=4, channels=channels, width=8))
    found = from_official(theirs(network, layout))
    check_read(found, network)
    assert ESPCN(found.config).contract.luma == luma


def test_other_checkpoints_are_left_to_others():
    state = theirs(ESPCN(ESPCNConfig(width=8)))
    assert from_official({**state, **theirs(ESPCN(ESPCNConfig(width=8)), "Lornatang")}) is None
    assert from_official({**state, "mid_part.0.weight": torch.zeros(1)}) is None
    del state["last_part.0.bias"]
    assert from_official(state) is None


@torch.no_grad()
def test_another_scale_begins_with_the_nearest_sub_pixels():
    torch.manual_seed(0)
    source, target = (ESPCN(ESPCNConfig(scale=scale, width=8)) for scale in (3, 2))
    assert target.start_from(source) == []
    low = torch.rand(1, 1, 6, 7)
    corners = source(low).unflatten(-1, (-1, 3)).unflatten(-3, (-1, 3))[:, :, :, ::2][..., ::2]
    found = target(low).unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
    assert (found - corners).abs().max() <= 1e-6


def test_it_begins_with_bent_tanhs():
    """So that a training does not stay with one linear filter; see the file's head."""
    torch.manual_seed(0)
    network = ESPCN(ESPCNConfig())
    noise = 0.45 + 0.2 * torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        bent = network.extract(noise).abs()
    assert 0.1 < (bent > 0.8).float().mean() < 0.9
