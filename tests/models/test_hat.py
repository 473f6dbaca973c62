"""What is HAT's own: checkpoints of every variant, its turned table, and where training starts."""

import re

import pytest
import torch
from official import authors_shapes, check_read, without
from pydantic import ValidationError

from relume.models.super_resolution.hat import HAT, VARIANTS, HATConfig, from_official, tiny
from relume.recipes.hat import BUDGETS, recipe

_RENAMES = {
    "shallow.": "conv_first.", "first_norm.": "patch_embed.norm.", "fuse.": "conv_after_body.",
    "reconstruct.narrow.": "conv_before_upsample.0.", "reconstruct.last.": "conv_last.",
    "reconstruct.steps.0.": "upsample.0.", "reconstruct.steps.1.": "upsample.2.",
    "reconstruct.steps.2.": "upsample.4.",
    ".attention_norm.": ".norm1.", ".feed_forward_norm.": ".norm2.", ".overlap.attention.": ".overlap_attn.",
    ".overlap.": ".overlap_attn.", ".overlap_attn.project.": ".overlap_attn.proj.",
    ".attention.project.": ".attn.proj.", ".attention.": ".attn.",
    "bias_table": "relative_position_bias_table", ".channel_branch.narrow.": ".conv_block.cab.0.",
    ".channel_branch.widen.": ".conv_block.cab.2.",
    ".channel_branch.squeeze.": ".conv_block.cab.3.attention.1.",
    ".channel_branch.excite.": ".conv_block.cab.3.attention.3.", ".feed_forward.expand.": ".mlp.fc1.",
    ".feed_forward.contract.": ".mlp.fc2.", ".close.": ".conv.",
}  # fmt: skip


def authors_state(network):
    """Return a network's state as the authors' file has it."""
    config, state = network.config, {}
    for name, value in network.state_dict().items():
        key = re.sub(r"^groups\.(\d+)\.(layers|overlap)\.", r"layers.\1.residual_group.\2.", name)
        key = re.sub(r"^groups\.", "layers.", key).replace(".layers.", ".blocks.")
        for ours, theirs in _RENAMES.items():
            key = key.replace(ours, theirs)
        if key.endswith("overlap_attn.relative_position_bias_table"):
            # Along a side they number pixel j, seen from i, as j - i + 1 - 2o: less than we do by w + 2o - 2.
            row = 2 * (config.window + config.overlap) - 1
            below = (config.window + 2 * config.overlap - 2) * (row + 1)
            value = value[(torch.arange(row**2, device=value.device) + below) % row**2]
        state[key] = value
    state["relative_position_index_SA"] = torch.zeros(4, 4, dtype=torch.int64)
    state["relative_position_index_OCA"] = torch.zeros(4, 9, dtype=torch.int64)
    return state


@pytest.mark.parametrize("name", VARIANTS)
def test_the_authors_checkpoint_of_every_variant_is_recognised(name):
    with torch.device("meta"):  # numbers that nobody looks at
        network = HAT(VARIANTS[name].config)
    check_read(from_official(authors_state(network)), network)


@pytest.mark.parametrize(
    "changes",
    [
        {"connection": "identity", "heads": (4,)},
        {"scale": 8, "channels": 1, "ratio": 1.5},
        {"overlap": 2},
        {"qkv_bias": False},
        {"first_norm": False},
    ],
)
def test_other_settings_and_values_come_back(changes):
    network = HAT(tiny(VARIANTS["hat-x3"].config).model_copy(update=changes))
    check_read(from_official(authors_state(network)), network)


@torch.no_grad()
def test_without_biases_it_is_as_with_biases_of_nothing():
    torch.manual_seed(0)
    network = HAT(tiny(VARIANTS["hat-x2"].config).model_copy(update={"qkv_bias": False})).eval()
    whole = HAT(tiny(VARIANTS["hat-x2"].config)).eval()
    left = whole.load_state_dict(network.state_dict(), strict=False).missing_keys
    assert len(left) == 3
    assert all(key.endswith("attention.qkv.bias") for key in left)
    low = torch.rand(1, 3, 9, 8)
    assert torch.equal(whole(low), network(low))


@torch.no_grad()
def test_without_its_first_norm_features_go_into_the_groups_as_they_are():
    torch.manual_seed(0)
    network = HAT(tiny(VARIANTS["hat-x2"].config).model_copy(update={"first_norm": False})).eval()
    seen = []
    network.groups[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    low = torch.rand(1, 3, 8, 8)
    network(low)
    assert torch.allclose(seen[0], network.shallow(low - network.mean), atol=1e-6)


def test_the_authors_own_list_of_keys_is_read():
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in authors_shapes("hat").items()}
        check_read(from_official(state), HAT(VARIANTS["hat-x4"].config))


def test_relatives_are_not_taken_for_it():
    state = authors_state(HAT(tiny(VARIANTS["hat-x2"].config)))
    assert from_official(state)
    for missing in ("conv_block.cab.3.attention.1", "overlap_attn.relative", "conv_before"):
        assert from_official(without(state, missing)) is None


@torch.no_grad()
def test_another_scale_starts_from_all_but_the_enlarging():
    torch.manual_seed(0)
    source, target = (HAT(tiny(VARIANTS[f"hat-x{scale}"].config)) for scale in (2, 4))
    assert target.start_from(source) == ["reconstruct.steps.1.weight", "reconstruct.steps.1.bias"]
    assert torch.equal(target.reconstruct.last.weight, source.reconstruct.last.weight)


def test_the_recipe_goes_on_from_its_pre_training():
    for name in VARIANTS:
        recipes = {budget: recipe(name, budget) for budget in BUDGETS}
        assert recipes["pretrain"].network == recipes["finetune"].network
        assert recipes["pretrain"].start is None
        assert recipes["finetune"].start == f"runs/{name}-pretrain/{name}.safetensors"
        assert recipes["finetune"].optimiser.learning_rate == recipes["pretrain"].optimiser.learning_rate / 20


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"heads": (6,)}, "name as many"),
        ({"heads": (7,) * 6}, "cannot be shared by 7 heads"),
        ({"squeeze": 181}, "leaves nothing of width 180"),
        ({"scale": 5}, "scale"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        HATConfig(**settings)
