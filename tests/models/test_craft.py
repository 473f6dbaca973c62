"""What is CRAFT's own: checkpoints of every variant, whole windows, and taking over another scale."""

import re

import pytest
import torch
from official import authors_shapes, check_read, without
from pydantic import ValidationError

from relume.models.super_resolution.craft import CRAFT, VARIANTS, CRAFTConfig, from_official, tiny
from relume.nn.swin import relative_places

_RENAMES = (
    (r"^shallow\.", "conv_first."),
    (r"^norm\.", "norm.body."),
    (r"^fuse\.", "conv_after_body."),
    (r"^reconstruct\.", "upsample.0."),
    (r"^groups\.(\d+)\.close\.", r"layers.\1.conv."),
    (r"^groups\.(\d+)\.layers\.(\d+)\.high\.local", r"layers.\1.residual_group.hfer_blocks.\2.conv"),
    (r"^groups\.(\d+)\.layers\.(\d+)\.high\.sharp", r"layers.\1.residual_group.hfer_blocks.\2.fc"),
    (r"^groups\.(\d+)\.layers\.(\d+)\.high\.fuse", r"layers.\1.residual_group.hfer_blocks.\2.last_fc"),
    (r"^groups\.(\d+)\.layers\.(\d+)\.fuse\.", r"layers.\1.residual_group.hf_blocks.\2."),
    (r"(hf_blocks\.\d+)\.norm\.", r"\1.norm1.body."),
    (r"(hf_blocks\.\d+)\.channel_norm\.", r"\1.norm2.body."),
    (r"(hf_blocks\.\d+)\.attention\.", r"\1.attn."),
    (r"\.attn\.ask\.", ".attn.q."),
    (r"\.attn\.spread_ask\.", ".attn.q_dwconv."),
    (r"\.attn\.answer\.", ".attn.kv."),
    (r"\.attn\.spread_answer\.", ".attn.kv_dwconv."),
    (r"\.attn\.project\.", ".attn.project_out."),
    (r"(hf_blocks\.\d+)\.feed_forward\.expand", r"\1.ffn.project_in"),
    (r"(hf_blocks\.\d+)\.feed_forward\.spread", r"\1.ffn.dwconv"),
    (r"(hf_blocks\.\d+)\.feed_forward\.project", r"\1.ffn.project_out"),
    (r"\.attention_norm\.", ".norm1."),
    (r"\.feed_forward_norm\.", ".norm2."),
    (r"\.attention\.(qkv)\.", r".\1."),
    (r"\.attention\.project\.", ".proj."),
    (r"\.attention\.near\.", ".get_v."),
    (r"\.attention\.places\.(\d)\.enter\.", r".attns.\1.pos.pos_proj."),
    (r"\.feed_forward\.expand\.", ".mlp.fc1."),
    (r"\.feed_forward\.contract\.", ".mlp.fc2."),
)


def authors_key(name):
    key = re.sub(
        r"^groups\.(\d+)\.layers\.(\d+)\.rectangles\.(\d)\.",
        lambda match: f"layers.{match[1]}.residual_group.srwa_blocks.{2 * int(match[2]) + int(match[3])}.",
        name,
    )
    key = re.sub(
        r"\.attention\.places\.(\d)\.(norms|layers)\.(\d)",
        lambda match: f".attns.{match[1]}.pos.pos{int(match[3]) + 1}.{0 if match[2] == 'norms' else 2}",
        key,
    )
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def authors_state(network):
    """Return a network's state as the authors' file has it."""
    state = {authors_key(name): value for name, value in network.state_dict().items()}
    tall, wide = network.config.sides
    with torch.device("cpu"):
        tables = {
            "relative_position_index_h": relative_places(tall, wide),
            "relative_position_index_v": relative_places(wide, tall),
            "biases_h": torch.zeros((2 * tall - 1) * (2 * wide - 1), 2),
            "biases_v": torch.zeros((2 * tall - 1) * (2 * wide - 1), 2),
        }
    return state | tables


@pytest.mark.parametrize("name", VARIANTS)
def test_the_authors_checkpoint_of_every_variant_is_recognised(name):
    with torch.device("meta"):  # numbers that nobody looks at
        network = CRAFT(VARIANTS[name].config)
    check_read(from_official(authors_state(network)), network)


@pytest.mark.parametrize(
    "changes",
    [
        {"connection": "identity", "heads": (4,)},
        {"depths": (1, 2), "heads": (2, 6), "channels": 1},
        {"sides": (8, 2)},
        {"sides": (1, 3)},
        {"sides": (4, 4)},
    ],
)
def test_other_settings_and_values_come_back(changes):
    network = CRAFT(tiny(VARIANTS["craft-x3"].config).model_copy(update=changes))
    check_read(from_official(authors_state(network)), network)


def test_the_authors_own_list_of_keys_is_what_is_written_back():
    with torch.device("meta"):
        network = CRAFT(VARIANTS["craft-x4"].config)
    written = {key: list(value.shape) for key, value in authors_state(network).items()}
    assert written == authors_shapes("craft")


def test_relatives_are_not_taken_for_it():
    state = authors_state(CRAFT(tiny(VARIANTS["craft-x2"].config)))
    assert from_official(state)
    for missing in ("srwa_blocks", "last_fc", "upsample"):
        assert from_official(without(state, missing)) is None


def test_without_its_tables_windows_are_the_papers():
    state = authors_state(CRAFT(VARIANTS["craft-x2"].config))
    found = from_official(without(state, "index"))
    assert found.config.sides == (4, 16)


@torch.no_grad()
def test_shifted_windows_see_the_opposite_border():
    torch.manual_seed(0)
    network = CRAFT(VARIANTS["craft-x2"].config.model_copy(update={"depths": (1,), "heads": (6,)})).eval()
    low = torch.rand(1, 3, 16, 64)
    # Attention between channels would move everything a little.
    network.groups[0].layers[0].fuse.attention.project.weight.zero_()
    reference = network(low)
    low[..., -1] += 1
    moved = (network(low) - reference).abs().amax((0, 1, 2))
    assert moved[0] > 0
    assert moved[60] == 0


@torch.no_grad()
def test_another_scale_starts_from_the_trunk_and_the_nearest_sub_pixels():
    torch.manual_seed(0)
    source, target = (CRAFT(tiny(VARIANTS[f"craft-x{scale}"].config)).eval() for scale in (2, 4))
    assert target.start_from(source) == []
    low = torch.rand(1, 3, 8, 8)
    enlarged = source(low).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(target(low), enlarged, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"heads": (6,)}, "name as many"),
        ({"heads": (3,) * 4}, "by 3 heads in two halves"),
        ({"sides": (4, 6)}, "a multiple of the shorter"),
        ({"width": 24}, "width"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        CRAFTConfig(**settings)
