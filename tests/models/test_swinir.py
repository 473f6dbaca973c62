"""What is SwinIR's own: forms of checkpoints, taking over another scale, and refused settings."""

import re

import pytest
import torch
from official import check_read
from pydantic import ValidationError

from relume.models import zoo
from relume.models.super_resolution.swinir import VARIANTS, SwinIR, SwinIRConfig, from_official, tiny


def authors_names(network):
    """Return a network's state under the names that the authors' file gives it."""
    config = network.config
    kind = config.reconstruction
    ends = {
        "shuffle": {
            "reconstruct.narrow.": "conv_before_upsample.0.", "reconstruct.last.": "conv_last.",
            "reconstruct.steps.0.": "upsample.0.", "reconstruct.steps.1.": "upsample.2.",
            "reconstruct.steps.2.": "upsample.4.",
        },
        "direct": {"reconstruct.": "upsample.0."},
        "nearest": {
            "reconstruct.narrow.": "conv_before_upsample.0.", "reconstruct.steps.0.": "conv_up1.",
            "reconstruct.steps.1.": "conv_up2.", "reconstruct.refine.": "conv_hr.",
            "reconstruct.last.": "conv_last.",
        },
        "residual": {"reconstruct.": "conv_last."},
    }[kind]  # fmt: skip
    renames = {
        **ends, "shallow.": "conv_first.", "first_norm.": "patch_embed.norm.", "fuse.": "conv_after_body.",
        ".attention_norm.": ".norm1.", ".feed_forward_norm.": ".norm2.", ".attention.qkv.": ".attn.qkv.",
        ".attention.project.": ".attn.proj.",
        ".feed_forward.expand.": ".mlp.fc1.", ".feed_forward.contract.": ".mlp.fc2.",
        ".attention.bias_table": ".attn.relative_position_bias_table", ".close.": ".conv.",
    }  # fmt: skip
    state = {}
    for name, value in network.state_dict().items():
        key = re.sub(r"^blocks\.(\d+)\.layers\.", r"layers.\1.residual_group.blocks.", name)
        key = re.sub(r"^blocks\.", "layers.", key)
        for ours, theirs in renames.items():
            key = key.replace(ours, theirs)
        state[key] = value
    state["layers.0.residual_group.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    return state


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "swinir-plain"])
def test_the_authors_checkpoints_of_every_task_are_recognised(name):
    window = VARIANTS[name].config.window
    config = tiny(VARIANTS[name].config).model_copy(
        update={"depths": (2, 1), "heads": (2, 4), "window": window}
    )
    network = SwinIR(config)
    shown = {} if config.reconstruction in ("shuffle", "nearest") else {"features": SwinIRConfig().features}
    check_read(from_official(authors_names(network)), network, config=config.model_copy(update=shown))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("swinir-jpeg")])
def test_the_authors_files_for_jpeg_are_these_variants(name):
    """Which have 255 as the factor on the input, and say so by their windows of 7 pixels alone."""
    with torch.device("meta"):  # numbers that nobody looks at
        network = SwinIR(VARIANTS[name].config)
    found = from_official(authors_names(network))
    assert found.config == VARIANTS[name].config
    assert found.config.image_range == 255
    assert zoo.variant_of("swinir", found.config) == name


@pytest.mark.parametrize("window", [6, 8])
def test_other_windows_that_keep_the_size_take_the_pictures_as_they_are(window):
    config = tiny(VARIANTS["swinir-denoise"].config).model_copy(update={"window": window})
    assert from_official(authors_names(SwinIR(config))).config.image_range == 1


@pytest.mark.parametrize("changes", [{"qkv_bias": False}, {"first_norm": False}])
@pytest.mark.parametrize("name", ["swinir-x2", "swinir-light-x2", "swinir-real-x4", "swinir-jpeg"])
@torch.no_grad()
def test_what_its_authors_settings_leave_out_is_left_out(name, changes):
    torch.manual_seed(0)
    update = {**changes, "features": 64, "window": VARIANTS[name].config.window}
    network = SwinIR(tiny(VARIANTS[name].config).model_copy(update=update)).eval()
    check_read(from_official(authors_names(network)), network)
    # Where it is nothing, a network with all of it gives the same.
    whole = SwinIR(network.config.model_copy(update=dict.fromkeys(changes, True))).eval()
    left = whole.load_state_dict(network.state_dict(), strict=False).missing_keys
    assert left
    assert all(re.search(r"qkv\.bias|first_norm", key) for key in left)
    low = torch.rand(1, 3, 9, 8)
    assert torch.equal(whole(low), network(low)) == ("qkv_bias" in changes)


@torch.no_grad()
def test_without_its_first_norm_features_go_into_the_blocks_as_they_are():
    torch.manual_seed(0)
    network = SwinIR(tiny(VARIANTS["swinir-light-x2"].config).model_copy(update={"first_norm": False})).eval()
    seen = []
    network.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    low = torch.rand(1, 3, 8, 8)
    network(low)
    assert torch.equal(seen[0], network.shallow(low - network.mean))


def test_relatives_are_not_taken_for_it():
    state = authors_names(SwinIR(tiny(VARIANTS["swinir-light-x2"].config)))
    assert from_official({**state, "layers.0.residual_group.blocks.0.conv_block.cab.0.weight": 0}) is None
    assert from_official({"layers.0.blocks.0.attn.qkv.weight": torch.zeros(3)}) is None


@torch.no_grad()
def test_another_scale_starts_from_the_trunk_and_the_nearest_sub_pixels():
    torch.manual_seed(0)
    source, target = (SwinIR(tiny(VARIANTS[f"swinir-light-x{scale}"].config)).eval() for scale in (2, 4))
    assert target.start_from(source) == []
    low = torch.rand(1, 3, 8, 8)
    enlarged = source(low).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(target(low), enlarged, atol=1e-6)


@torch.no_grad()
def test_whole_windows_are_run_as_they_are_and_others_mirrored():
    torch.manual_seed(0)
    network = SwinIR(tiny(VARIANTS["swinir-x2"].config)).eval()
    low = torch.rand(1, 3, 8, 8)
    cut = low[..., :6, :7]
    mirrored = torch.nn.functional.pad(cut, (0, 1, 0, 2), mode="reflect")
    assert torch.allclose(network(cut), network(mirrored)[..., :12, :14], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"heads": (6,)}, "name as many"),
        ({"heads": (7,) * 6}, "cannot be shared by 7 heads"),
        ({"reconstruction": "residual"}, "scale must be 1"),
        ({"reconstruction": "nearest", "scale": 3}, "by 2 or 4"),
        ({"scale": 5}, "scale"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        SwinIRConfig(**settings)


@pytest.mark.parametrize("hidden", [11, 15, 22, 30])
def test_a_ratio_is_found_that_gives_the_hidden_width(hidden):
    config = SwinIRConfig(width=11, depths=(2,), heads=(1,), window=3, ratio=(hidden + 0.5) / 11)
    network = SwinIR(config)
    found = from_official(authors_names(network))
    SwinIR(found.config).load_state_dict(dict(found.state))
