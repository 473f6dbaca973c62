"""What is DLGSANet's own: forms of checkpoints, kernels of pixels, attention in windows, refused settings."""

import re

import pytest
import torch
from official import check_read, without
from pydantic import ValidationError
from torch.nn import functional as F

from relume.models.super_resolution.dlgsanet import (
    VARIANTS,
    DLGSANet,
    DLGSANetConfig,
    DynamicConv,
    GlobalAttention,
    PlainFeedForward,
    from_official,
    tiny,
)
from relume.nn.local_windows import over_windows
from relume.nn.restormer import attend_channels


def authors_names(network):
    """Return a network's state under the names that the authors' file gives it."""
    config = network.config
    norms = config.outer_norms
    renames = (
        (r"^shallow\.", "overlap_embed.0.proj."),
        (r"^reconstruct\.narrow\.", "conv_before_upsample.0."),
        (r"^reconstruct\.steps\.(\d)\.", lambda match: f"upsample.{2 * int(match[1])}."),
        (r"^reconstruct\.last\.", "conv_last."),
        (r"^reconstruct\.", "conv_last." if config.scale == 1 else "upsample.0."),
        (r"^fuse\.", f"deep_feature_extraction.{config.groups + 2 * norms}."),
        (r"^first_norm\.", "deep_feature_extraction.0.body."),
        (r"^norm\.", f"deep_feature_extraction.{config.groups + 1}.body."),
        (r"^groups\.(\d+)\.", lambda match: f"deep_feature_extraction.{int(match[1]) + norms}."),
        (r"\.layers\.(\d+)\.", r".body.\1."),
        (r"\.attention\.dynamic\.squeeze\.", ".IDynamicDWConv.conv.conv1.0."),
        (r"\.attention\.dynamic\.spread\.", ".IDynamicDWConv.conv.conv1.1."),
        (r"\.attention\.dynamic\.generate\.", ".IDynamicDWConv.conv.conv2.0."),
        (r"\.attention\.value\.", ".IDynamicDWConv.conv0."),
        (r"\.attention\.(expand|spread|temperature)", r".restormer_attn.\1"),
    )
    state, ours = {}, network.state_dict()
    for name, value in ours.items():
        layer = re.sub(r"(layers\.\d+\.).*", r"\1", name)
        dynamic = f"{layer}attention.dynamic.squeeze.weight" in ours
        plain = f"{layer}feed_forward.expand.bias" in ours
        key = name
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        key = key.replace(
            ".attention.project.", ".IDynamicDWConv.conv1." if dynamic else ".restormer_attn.project_out."
        )
        key = key.replace("restormer_attn.expand", "restormer_attn.qkv")
        key = key.replace("restormer_attn.spread", "restormer_attn.qkv_dwconv")
        first, second, prefix = ("norm1", "norm2", "IDynamic") if dynamic else ("norm3", "norm4", "restormer")
        key = re.sub(r"(body\.\d+)\.norm\.", rf"\1.{first}.body.", key)
        key = re.sub(r"(body\.\d+)\.channel_norm\.", rf"\1.{second}.body.", key)
        for ours_, gated_, plain_ in (
            ("expand", "project_in", "body.0"), ("spread", "dwconv", ""),
            ("project", "project_out", "body.2"),
        ):  # fmt: skip
            key = key.replace(f".feed_forward.{ours_}.", f".{prefix}_ffn.{plain_ if plain else gated_}.")
        per_block = 2 if config.pattern in ("sparseedge", "edge") else 1
        state[key.replace(".close.", f".body.{config.blocks * per_block}.")] = value
    return state


FORMS = {
    **{name: {} for name in VARIANTS},
    "several": {"groups": 2, "blocks": 2},
    "norms": {"outer_norms": True, "groups": 2},
    "plain": {"local_feed_forward": "plain", "global_feed_forward": "plain", "global_ratio": 1.5},
    **{
        f"shuffle x{scale}": {"reconstruction": "shuffle", "scale": scale, "features": 6}
        for scale in (1, 2, 3, 4, 8)
    },
    "one size": {"scale": 1, "channels": 1},
    "one kind": {"pattern": "idynamic", "blocks": 2, "heads": 6},
    "other kind": {
        "pattern": "restormer", "global_ratio": 2.5, "outer_norms": True, "kernel_size": 7,
        "kernel_channels": 6,
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_authors_checkpoints_are_recognised_with_their_settings(form):
    variant = VARIANTS.get(form, VARIANTS["dlgsanet-light-x4"]).config
    window = {"x2": 96, "x3": 72}.get(form[-2:], 48)
    small = tiny(variant).model_copy(update={"window": window, **FORMS[form]})
    config = variant if form in VARIANTS else small
    with torch.device("meta" if form in VARIANTS else "cpu"):
        network = DLGSANet(config)
    check_read(from_official(authors_names(network)), network)


def test_relatives_are_not_taken_for_it():
    state = authors_names(DLGSANet(tiny(VARIANTS["dlgsanet-x2"].config)))
    assert from_official(without(state, "body")) is None
    assert from_official({"overlap_embed.0.proj.weight": torch.zeros(8, 3, 3, 3)}) is None
    assert from_official(without(state, "upsample")) is None


@torch.no_grad()
def test_each_pixel_is_convolved_with_its_own_kernel():
    torch.manual_seed(0)
    layer = DynamicConv(8, kernel_size=3, kernel_channels=4).double()
    x = torch.rand(2, 8, 5, 6, dtype=torch.float64)
    kernels = layer.generate(layer.spread(layer.squeeze(x))).unflatten(1, (2, 9))  # B G k² H W
    places = F.unfold(x, 3, padding=1).unflatten(2, (5, 6)).unflatten(1, (2, 4, 9))  # B G N/G k² H W
    plain = (places * kernels[:, :, None]).sum(3).flatten(1, 2)
    assert (layer(x) - plain).abs().max() <= 1e-12


@pytest.mark.parametrize(("height", "width"), [(9, 23), (8, 8), (17, 3), (1, 40)])
def test_windows_cover_the_picture_and_are_averaged(height, width):
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    seen = []

    def noted(windows):
        seen.append(tuple(windows.shape[2:]))
        return windows * windows.mean((2, 3), keepdim=True)

    found = over_windows(x, noted, window=8)
    assert seen == [(min(height, 8), min(width, 8))]
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    tops, lefts = ([min(index * -(-(side - min(side, 8)) // max(-(-side // 8) - 1, 1)), side - min(side, 8))
                    for index in range(-(-side // 8))] for side in (height, width))  # fmt: skip
    for top in tops:
        for left in lefts:
            place = (..., slice(top, top + 8), slice(left, left + 8))
            total[place] += x[place] * x[place].mean((2, 3), keepdim=True)
            count[place] += 1
    assert (found - total / count).abs().max() <= 1e-12


@torch.no_grad()
def test_attention_takes_the_whole_patch_in_training_and_windows_in_use():
    torch.manual_seed(0)
    config = tiny(VARIANTS["dlgsanet-x2"].config)
    layer = GlobalAttention(config)
    low = torch.rand(1, config.width, 14, 9)
    whole = layer.train()(low)
    assert (layer.eval()(low) - whole).abs().max() > 1e-4
    always = GlobalAttention(config.model_copy(update={"windowed": False})).eval()
    always.load_state_dict(layer.state_dict())
    assert torch.equal(always(low), whole)


@torch.no_grad()
def test_likeness_between_channels_passes_the_activation_that_is_set():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 4, 3, 5).double().unbind()
    rows = [F.normalize(part.flatten(2), dim=-1) for part in (query, key)]
    likeness = rows[0] @ rows[1].transpose(-2, -1) * 2
    for name, function in (("relu", torch.relu), ("gelu", F.gelu), ("sigmoid", torch.sigmoid)):
        wanted = (function(likeness) @ value.flatten(2)).unflatten(2, (3, 5))
        temperature = torch.full((1, 1, 1), 2.0).double()
        found = attend_channels(query, key, value, temperature, similarity=name)
        assert (found - wanted).abs().max() <= 1e-12
        config = tiny(VARIANTS["dlgsanet-x2"].config).model_copy(update={"activation": name})
        assert GlobalAttention(config).similarity == name
        assert GlobalAttention(config.model_copy(update={"pattern": "edge"})).similarity == "softmax"


@torch.no_grad()
def test_a_plain_feed_forward_network_is_two_convolutions_about_a_gelu():
    torch.manual_seed(0)
    layer = PlainFeedForward(4, ratio=1.5).double()
    x = torch.randn(1, 4, 3, 5).double()
    hidden = (
        torch.einsum("oi,bihw->bohw", layer.expand.weight[:, :, 0, 0], x) + layer.expand.bias[:, None, None]
    )
    bent = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    wanted = torch.einsum("oi,bihw->bohw", layer.project.weight[:, :, 0, 0], bent)
    assert (layer(x) - wanted - layer.project.bias[:, None, None]).abs().max() <= 1e-12


@torch.no_grad()
def test_a_shuffle_goes_on_from_another_scale_but_for_its_steps():
    torch.manual_seed(0)
    settings = {"reconstruction": "shuffle", "features": 6}
    source, target = (
        DLGSANet(tiny(VARIANTS[f"dlgsanet-x{scale}"].config).model_copy(update=settings)) for scale in (2, 4)
    )
    assert target.start_from(source) == ["reconstruct.steps.1.weight", "reconstruct.steps.1.bias"]
    assert target(torch.rand(1, 3, 3, 5)).shape == (1, 3, 12, 20)


@torch.no_grad()
def test_another_scale_starts_from_the_trunk_and_the_nearest_sub_pixels():
    torch.manual_seed(0)
    source, target = (DLGSANet(tiny(VARIANTS[f"dlgsanet-tiny-x{scale}"].config)).eval() for scale in (2, 4))
    assert target.start_from(source) == []
    low = torch.rand(1, 3, 8, 8)
    enlarged = source(low).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(target(low), enlarged, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kernel_size": 4}, "must be odd"),
        ({"kernel_channels": 7}, "no multiple of kernel_channels"),
        ({"heads": 5}, "no multiple of heads"),
        ({"scale": 5}, "scale"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        DLGSANetConfig(**settings)
