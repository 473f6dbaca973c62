"""What is CATANet's own: forms of checkpoints, centres that move in training, patches, refused settings."""

import re

import pytest
import torch
from official import check_read, without
from pydantic import ValidationError
from torch.nn import functional as F

from relume.models.super_resolution.catanet import (
    VARIANTS,
    CATANet,
    CATANetConfig,
    LocalAttention,
    TokenAggregation,
    from_official,
    tiny,
)


def authors_names(network):
    """Return a network's state under the names that the authors' file gives it."""
    renames = (
        (r"^shallow\.", "first_conv."),
        (r"^reconstruct\.", "last_conv."),
        (r"^enlarge\.(\d)\.", lambda match: f"upconv{int(match[1]) + 1}."),
        (r"^groups\.(\d+)\.close\.", r"mid_convs.\1."),
        (r"^groups\.(\d+)\.aggregate\.feed_forward\.", r"blocks.\1.0.mlp."),
        (r"^groups\.(\d+)\.aggregate\.", r"blocks.\1.0."),
        (r"^groups\.(\d+)\.local\.feed_forward\.", r"blocks.\1.1.layer.1."),
        (r"^groups\.(\d+)\.local\.(?=attention)", r"blocks.\1.1.layer.0.fn."),
        (r"^groups\.(\d+)\.local\.", r"blocks.\1.1.layer.0."),
        (r"(?<=fn\.)attention\.", ""),
        (r"\.attention\.", ".iasa_attn."),
        (r"\.centre_key\.", ".irca_attn.to_k."),
        (r"\.centre_value\.", ".irca_attn.to_v."),
        (r"\.query\.", ".to_q."), (r"\.key\.", ".to_k."), (r"\.value\.", ".to_v."),
        (r"\.project\.", ".proj."),
        (r"\.close\.", ".conv1x1."), (r"\.centres$", ".means"), (r"\.started$", ".initted"),
        (r"\.expand\.", ".fn.fc1."), (r"\.contract\.", ".fn.fc2."),
        (r"\.spread\.", ".fn.dwconv.depthwise_conv.0."),
    )  # fmt: skip
    state = {}
    for name, value in network.state_dict().items():
        key = name
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        state[key if network.config.scale == 4 else key.replace("upconv1.", "upconv.")] = value
    return state


FORMS = {
    **{name: {} for name in VARIANTS},
    "same size": {"scale": 1},
    "several": {"centres": (4, 8, 16, 4, 8), "group_sizes": (1024, 512, 256, 1024, 512), "rounds": (5,) * 5,
                "patches": (16, 20, 24, 28, 16)},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_authors_checkpoints_are_recognised_with_their_settings(form):
    default = {"patches": (16,), "centres": (8,), "group_sizes": (512,), "rounds": (5,)}
    config = VARIANTS.get(form, VARIANTS["catanet-x3"]).config
    if form not in VARIANTS:
        config = tiny(config).model_copy(update={**default, **FORMS[form]})
    with torch.device("meta" if form in VARIANTS else "cpu"):
        network = CATANet(config)
    read = config.model_copy(update={"heads": 4 if form in VARIANTS else 2})
    check_read(from_official(authors_names(network)), network, config=read)


def test_relatives_are_not_taken_for_it():
    state = authors_names(CATANet(tiny(VARIANTS["catanet-x2"].config)))
    assert from_official(without(state, ".1.layer.")) is None


def test_centres_start_with_the_first_step_of_training_and_follow_slowly():
    torch.manual_seed(0)
    config = tiny(VARIANTS["catanet-x2"].config)
    layer = TokenAggregation(config, 0)
    assert not layer.started
    layer.eval()(torch.rand(1, 5, 6, config.width))
    assert not layer.started
    layer.train()(torch.rand(2, 5, 6, config.width)).sum().backward()
    first = layer.centres.clone()
    assert layer.started
    assert torch.allclose(first.norm(dim=1), torch.ones(3))
    layer(torch.rand(2, 5, 6, config.width))
    moved = (layer.centres - first).abs().max()
    assert 0 < moved <= 0.002
    layer.eval()(torch.rand(2, 5, 6, config.width))
    assert torch.equal((layer.centres - first).abs().max(), moved)


@torch.no_grad()
def test_in_use_a_picture_of_a_batch_does_not_see_the_others_once_centres_are_stored():
    torch.manual_seed(0)
    network = CATANet(tiny(VARIANTS["catanet-x2"].config))
    network.train()(torch.rand(2, 3, 9, 9))
    low = torch.rand(3, 3, 11, 7)
    together = network.eval()(low)
    assert torch.allclose(network(low[1:2]), together[1:2], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(14, 10), (11, 9), (6, 6), (4, 15), (1, 1)])
def test_patches_are_attended_to_one_by_one_and_averaged_by_halving(height, width):
    torch.manual_seed(0)
    config = tiny(VARIANTS["catanet-x2"].config)
    layer = LocalAttention(config, 0).double()
    x = torch.rand(2, height, width, config.width, dtype=torch.float64)
    starts = []
    for side in (height, width):
        length = min(side, 6)
        starts.append([min(start, side - length) for start in range(0, max(side - 2, 1), 4) if start == 0
                       or start < side - 2])  # fmt: skip
    total, count = torch.zeros_like(x), torch.zeros(height, width, 1, dtype=torch.float64)
    halvings = torch.zeros_like(count)
    for top in starts[0]:
        for left in starts[1]:
            place = (slice(top, top + 6), slice(left, left + 6))
            patch = x[:, place[0], place[1]]
            tokens = layer.norm(patch).flatten(1, 2)
            query, key, value = (
                linear(tokens).unflatten(2, (2, -1)).transpose(1, 2)
                for linear in (layer.attention.query, layer.attention.key, layer.attention.value)
            )
            likeness = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(-1)
            seen = layer.attention.project((likeness @ value).transpose(1, 2).flatten(2))
            total[:, place[0], place[1]] += patch + seen.unflatten(1, patch.shape[1:3])
            count[place] += 1
    for dim, side in enumerate((height, width)):
        for before, start in zip(starts[dim], starts[dim][1:], strict=False):
            halvings.narrow(dim, start, before + 6 - start).add_(1)
        assert starts[dim][-1] + min(side, 6) == side
    plain = total / 2**halvings
    plain = plain + layer.feed_forward(plain)
    assert (layer(x) - plain).abs().max() <= 1e-12


@torch.no_grad()
def test_the_result_is_added_to_the_bilinear_picture():
    network = CATANet(tiny(VARIANTS["catanet-x3"].config)).eval()
    for parameter in network.reconstruct.parameters():
        parameter.zero_()
    low = torch.rand(1, 3, 6, 5)
    assert torch.equal(network(low), F.interpolate(low, scale_factor=3, mode="bilinear"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"heads": 3}, "cannot be shared by 3 heads"),
        ({"query_width": 44}, "at most width"),
        ({"patches": (16,)}, "name as many"),
        ({"patches": (2,) * 8}, "greater than 2"),
        ({"scale": 8}, "scale"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        CATANetConfig(**settings)
