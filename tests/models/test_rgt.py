"""What is RGT's own: checkpoints of every variant, how often it shrinks features, and extreme sizes."""

import math
import re

import pytest
import torch
from official import authors_shapes, check_read, without
from pydantic import ValidationError

from relume.models.super_resolution.rgt import RGT, VARIANTS, RGTConfig, from_official, reductions, tiny
from relume.nn.rectangles import RectangleAttention
from relume.nn.swin import relative_places

_RENAMES = (
    (r"^shallow\.", "conv_first."),
    (r"^first_norm\.", "before_RG.1."),
    (r"^fuse\.", "conv_after_body."),
    (r"^reconstruct\.narrow\.", "conv_before_upsample.0."),
    (r"^reconstruct\.last\.", "conv_last."),
    (r"^groups\.(\d+)\.layers\.", r"layers.\1.blocks."),
    (r"^groups\.(\d+)\.close\.", r"layers.\1.conv."),
    (r"\.again$", ".gamma"),
    (r"\.attention_norm\.", ".norm1."),
    (r"\.feed_forward_norm\.", ".norm2."),
    (r"\.attention\.reduce\.", ".attn.reduction1."),
    (r"\.attention\.spread\.", ".attn.dwconv."),
    (r"\.attention\.narrow\.", ".attn.conv."),
    (r"\.attention\.norm\.", ".attn.norm_act.0."),
    (r"\.attention\.([qkv])\w*\.", r".attn.\1."),
    (r"\.attention\.project\.", ".attn.proj."),
    (r"\.attention\.places\.(\d)\.enter\.", r".attn.attns.\1.pos.pos_proj."),
    (r"\.feed_forward\.expand\.", ".mlp.fc1."),
    (r"\.feed_forward\.norm\.", ".mlp.sg.norm."),
    (r"\.feed_forward\.spread\.", ".mlp.sg.conv."),
    (r"\.feed_forward\.contract\.", ".mlp.fc2."),
)


def authors_key(name):
    key = re.sub(r"^reconstruct\.steps\.(\d)", lambda match: f"upsample.{2 * int(match[1])}", name)
    key = re.sub(
        r"\.attention\.places\.(\d)\.(norms|layers)\.(\d)",
        lambda match: f".attn.attns.{match[1]}.pos.pos{int(match[3]) + 1}.{0 if match[2] == 'norms' else 2}",
        key,
    )
    index = re.search(r"layers\.(\d+)\.attention", key)
    local = index is not None and int(index[1]) % 2 == 0
    key = key.replace(".attention.near.", ".attn.get_v." if local else ".attn.cpe.")
    key = key.replace(".attention.qkv.", ".attn.qkv.")
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def authors_state(network):
    """Return a network's state as the authors' file has it."""
    state = {authors_key(name): value for name, value in network.state_dict().items()}
    tall, wide = network.config.sides
    for name, module in network.named_modules():
        if isinstance(module, RectangleAttention):
            attention = authors_key(f"{name}.").removesuffix(".").replace(".attention", ".attn")
            for branch, side in enumerate(((tall, wide), (wide, tall))):
                table = relative_places(*side).cpu()
                state[f"{attention}.attns.{branch}.relative_position_index"] = table
                places = (2 * tall - 1) * (2 * wide - 1)
                state[f"{attention}.attns.{branch}.rpe_biases"] = torch.zeros(places, 2)
                count = 64 * 64 // (tall * wide)
                group, _, block = map(int, re.findall(r"\d+", name.replace("layers", "0"))[:3])
                if block % 4 == (0 if group % 2 else 2):
                    shape = (count, tall * wide, tall * wide)
                    state[f"{attention}.attn_mask_{branch}"] = torch.empty(shape, device="meta")
    return state


@pytest.mark.parametrize("name", VARIANTS)
def test_the_authors_checkpoint_of_every_variant_is_recognised(name):
    with torch.device("meta"):  # numbers that nobody looks at
        network = RGT(VARIANTS[name].config)
    check_read(from_official(authors_state(network)), network)


@pytest.mark.parametrize(
    "changes",
    [
        {"connection": "3conv", "heads": (4,), "scale": 1},
        {"depths": (1, 2), "heads": (2, 6), "channels": 1, "scale": 8},
        {"sides": (8, 2), "reduced": 0.25, "ratio": 1.5},
        {"qkv_bias": False},
    ],
)
def test_other_settings_and_values_come_back(changes):
    network = RGT(tiny(VARIANTS["rgt-x3"].config).model_copy(update=changes))
    check_read(from_official(authors_state(network)), network)


@torch.no_grad()
def test_without_biases_it_is_as_with_biases_of_nothing():
    torch.manual_seed(0)
    network = RGT(tiny(VARIANTS["rgt-x2"].config).model_copy(update={"qkv_bias": False})).eval()
    whole = RGT(tiny(VARIANTS["rgt-x2"].config)).eval()
    left = whole.load_state_dict(network.state_dict(), strict=False).missing_keys
    assert {key.rpartition("attention.")[2] for key in left} == {
        "qkv.bias", "query.bias", "key.bias", "value.bias"
    }  # fmt: skip
    low = torch.rand(1, 3, 16, 17)
    assert torch.equal(whole(low), network(low))


def test_the_authors_own_list_of_keys_is_what_is_written_back():
    with torch.device("meta"):
        network = RGT(VARIANTS["rgt-x4"].config)
    written = {key: list(value.shape) for key, value in authors_state(network).items()}
    assert written == authors_shapes("rgt")


def test_relatives_are_not_taken_for_it():
    state = authors_state(RGT(tiny(VARIANTS["rgt-x2"].config)))
    assert from_official(state)
    for missing in ("before_RG", "mlp.sg", "conv_before"):
        assert from_official(without(state, missing)) is None


def test_without_its_tables_windows_are_the_papers():
    state = authors_state(RGT(tiny(VARIANTS["rgt-x2"].config)))
    found = from_official(without(state, "index"))
    assert found.config.sides == (8, 32)


@pytest.mark.parametrize("height", [16, 63, 64, 255, 256, 1023, 1024, 4096])
def test_features_are_shrunk_as_often_as_by_the_authors(height):
    for width in (16, 256, 1023, 1024):
        theirs = max(2, int(math.log(height // 16, 4)), int(math.log(width // 16, 4)))
        fits = 4**theirs <= min(height, width)
        assert (reductions(height, width) == theirs) == fits
        assert 4 ** reductions(height, width) <= min(height, width)


@torch.no_grad()
def test_small_sides_are_mirrored_and_long_ones_do_not_vanish():
    torch.manual_seed(0)
    network = RGT(tiny(VARIANTS["rgt-x2"].config)).eval()
    low = torch.rand(1, 3, 15, 17)
    mirrored = torch.empty(1, 3, 32, 17)
    mirrored[:, :, :29] = torch.nn.functional.pad(low, (0, 0, 0, 14), mode="reflect")
    mirrored[:, :, 29:] = low[:, :, 1:4]
    assert torch.allclose(network(low), network(mirrored)[..., :30, :], atol=1e-6)
    assert network(torch.rand(1, 3, 17, 1030)).isfinite().all()


@torch.no_grad()
def test_a_far_pixel_is_seen():
    torch.manual_seed(0)
    network = RGT(tiny(VARIANTS["rgt-x2"].config)).eval()
    low = torch.rand(1, 3, 16, 96)
    reference = network(low)
    low[..., -1] += 1
    assert ((network(low) - reference)[..., 0].abs() > 0).any()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"heads": (6,)}, "name as many"),
        ({"heads": (3,) * 8}, "by 3 heads in two halves"),
        ({"reduced": 0.45}, "0.45 of it, cannot be shared"),
        ({"width": 36, "ratio": 0.75}, "27 channels, not halves"),
        ({"width": 24}, "width"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        RGTConfig(**settings)
