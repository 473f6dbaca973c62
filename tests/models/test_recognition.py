"""A file that is of no network we know, or does not fit it: one clear line tells what it is nearest to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from official import without
from test_edsr import theirs as edsr_names
from test_swinir import authors_names

from commanding import authors_name as cfsr_name
from relume.core.catalogue import systems
from relume.core.config import keys
from relume.core.errors import CheckpointError
from relume.core.variants import authors_name
from relume.models import zoo
from relume.models.super_resolution.cfsr import CFSR
from relume.models.super_resolution.cfsr import VARIANTS as CFSR_VARIANTS
from relume.models.super_resolution.edsr import EDSR
from relume.models.super_resolution.edsr import VARIANTS as EDSR_VARIANTS
from relume.models.super_resolution.edsr import tiny as edsr_tiny
from relume.models.super_resolution.swinir import VARIANTS, SwinIR, tiny
from relume.nn.surgery import apply_steps


def empty(shapes):
    return {key: torch.zeros(shape, device="meta") for key, shape in shapes.items()}


def convolution(name, taken, given, side=3):
    return {f"{name}.weight": (given, taken, side, side), f"{name}.bias": (given,)}


def normed(name, width):
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def swinir_with_absolute_places():
    state = authors_names(SwinIR(tiny(VARIANTS["swinir-light-x2"].config)))
    return {**state, "absolute_pos_embed": torch.zeros(1, 64, 8)}


def msrresnet():
    """BasicSR's, with the names and shapes of its x4."""
    shapes = convolution("conv_first", 3, 64)
    for block in range(16):
        shapes |= convolution(f"body.{block}.conv1", 64, 64) | convolution(f"body.{block}.conv2", 64, 64)
    shapes |= convolution("upconv1", 64, 256) | convolution("upconv2", 64, 256)
    return empty(shapes | convolution("conv_hr", 64, 64) | convolution("conv_last", 64, 3))


def leftthomas_discriminator():
    shapes, taken = convolution("net.0", 3, 64), 64
    for index, given in zip(range(2, 23, 3), (64, 128, 128, 256, 256, 512, 512), strict=True):
        shapes |= convolution(f"net.{index}", taken, given) | normed(f"net.{index + 1}", given)
        taken = given
    return empty(shapes | convolution("net.24", 512, 1024, 1) | convolution("net.26", 1024, 1, 1))


def basicsr_discriminator():
    """BasicSR's for pictures of 128 × 128, in a wrapper of its own."""
    shapes, taken = convolution("conv0_0", 3, 64), 64
    for level, width in enumerate((64, 128, 256, 512, 512)):
        if level:
            shapes |= convolution(f"conv{level}_0", taken, width) | normed(f"bn{level}_0", width)
        shapes |= convolution(f"conv{level}_1", width, width, 4) | normed(f"bn{level}_1", width)
        taken = width
    linear = {"linear1.weight": (100, 8192), "linear1.bias": (100,), "linear2.weight": (1, 100)}
    return empty({f"net_d.{key}": shape for key, shape in (shapes | linear).items()})


def resnet():
    """Torchvision's ResNet-18."""
    shapes, taken = {"conv1.weight": (64, 3, 7, 7), **normed("bn1", 64)}, 64
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, taken, 3, 3), **normed(f"{name}.bn1", width)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), **normed(f"{name}.bn2", width)}
            taken = width
    return empty({**shapes, "fc.weight": (1000, 512), "fc.bias": (1000,)})


def refusal(state):
    with pytest.raises(CheckpointError) as caught:
        zoo.recognise(state, Path("a.pth"))
    line = str(caught.value)
    assert line.startswith("a.pth ")
    assert len(line) < 320
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (swinir_with_absolute_places, "the closest is swinir, which has no absolute_pos_embed"),
        (
            msrresnet,
            "the closest is edsr-baseline-x4, which has 37 of the file's 37 weights, by their shapes",
        ),
        (leftthomas_discriminator, "seems to be a discriminator, which takes 3 channels and gives one value"),
        (basicsr_discriminator, "seems to be a discriminator, which takes 3 channels and gives one value"),
        (
            resnet,
            "the closest is far: dncnn-15 has but 4 of the file's 18 weights, by their shapes; its keys",
        ),
    ],
)
def test_what_is_of_no_network_is_told_with_the_closest(state, says):
    line = refusal(state())
    assert "of no architecture that relume knows" in line
    assert says in line


def test_what_is_like_nothing_says_so():
    line = refusal({"transformer.0.weight": torch.zeros(7, 11), "head.bias": torch.zeros(7)})
    assert "no weight of it has a shape of any; its keys begin with transformer.0.weight, head.bias" in line


def cfsr():
    network = CFSR(CFSR_VARIANTS["cfsr-x2"].config)
    return {
        cfsr_name(key): value for key, value in apply_steps(network, ("reparameterise",)).state_dict().items()
    }


def refused_file(state, folder, **changes):
    torch.save(state, folder / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        zoo.load_official(folder / "a.pth", changes)
    return str(caught.value).removeprefix(f"{folder}/")


def test_what_does_not_fit_is_counted_with_the_first_of_each_in_the_files_own_names(tmp_path):
    state = cfsr()
    del state["layers.1.blocks.1.attn.proj.weight"]
    for part in ("weight", "bias"):
        del state[f"layers.1.blocks.1.mlp.fc1.{part}"]
    state["conv_first.weight"] = torch.zeros(48, 3, 5, 5)
    state["layers.0.blocks.0.attn.scale"] = torch.zeros(3)
    assert refused_file(state, tmp_path) == (
        "a.pth looks like cfsr but does not fit: "
        "3 keys are missing (first layers.1.blocks.1.attn.proj.weight), "
        "1 key is not known (layers.0.blocks.0.attn.scale), "
        "1 key is of another shape (conv_first.weight: 48×3×5×5 instead of 48×3×3×3); "
        "get the file anew, or one whose network relume has"
    )


def test_a_setting_that_makes_the_misfit_is_named(tmp_path):
    line = refused_file(cfsr(), tmp_path, width=24)
    assert "conv_first.weight: 48×3×3×3 instead of 24×3×3×3" in line
    assert "change or leave out what is set (width), or get" in line


def test_of_several_systems_that_cannot_be_read_the_nearest_is_told():
    state = cfsr()
    del state["conv_first.weight"]
    line = refusal(
        {**state, "intro.weight": torch.zeros(4, 3, 3, 3), "middle_blks.0.sca.1.weight": torch.ones(1)}
    )
    assert "looks like cfsr but has no conv_first.weight" in line
    assert "weights of cfsr-x2 are there, by their shapes" in line


def test_what_is_missing_is_told_by_the_authors_name_also_where_ours_are_asked_for():
    state = authors_names(SwinIR(tiny(VARIANTS["swinir-light-x2"].config)))
    del state["conv_first.weight"]
    assert "looks like swinir but has no conv_first.weight" in refusal(state)


def test_shapes_that_do_not_go_together_are_told_without_the_librarys_words():
    assert "looks like cfsr but has tensors of shapes that do not go together" in refusal(
        {**cfsr(), "conv_first.weight": torch.zeros(())}
    )


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("stages.0.close.bias", "layers.0.conv.bias"),
        ("stages.1.norm.weight", "layers.1.norm.weight"),
        ("ups.0.weight", "up3.weight"),
        ("other.1.weight", "other.1.weight"),
        ("exit.weight", "exit.weight"),
    ],
)
def test_an_authors_name_is_told_by_those_of_others(name, theirs):
    known = {
        "stages.0.close.weight": "layers.0.conv.weight",
        "stages.0.norm.weight": "layers.0.norm.weight",
        "ups.1.weight": "up4.weight",
        "other.0.weight": "other.0.2.weight",
    }
    assert authors_name(name, known) == theirs


@pytest.mark.parametrize("name", [name for name, system in systems().items() if system.variants])
def test_settings_that_checkpoints_do_not_show_are_settings(name):
    config = next(iter(zoo.model_file(systems()[name]).VARIANTS.values())).config
    known = keys(type(config), config.model_dump())
    assert set(zoo.model_file(systems()[name]).OFFICIAL_SETTINGS.values()) <= set(known)


def loaded(state, folder, **changes):
    torch.save(state, folder / "a.pth")
    return zoo.load_official(folder / "a.pth", changes)[1]


def test_what_is_taken_on_trust_is_told_unless_the_file_shows_it_or_the_user_gave_it(tmp_path):
    state = authors_names(SwinIR(tiny(VARIANTS["swinir-light-x2"].config)))
    tabled, plain = (loaded(each, tmp_path) for each in (state, without(state, "position_bias_table")))
    assert tabled.trained["on_trust"] == {"image_range": 1.0}
    assert plain.trained["on_trust"] == {"image_range": 1.0, "window": 8, "heads": [4]}
    assert zoo.told_on_trust(plain, "a.pth") == (
        "taken on trust, as the file does not show it: image_range 1.0, window 8, heads [4] "
        "(change: relume convert a.pth --set NAME=VALUE)"
    )
    given = loaded(cfsr(), tmp_path, image_range=255.0)
    assert "on_trust" not in given.trained
    assert zoo.told_on_trust(given, "a.pth") is None


@pytest.mark.parametrize(("own", "hidden"), [(True, ()), (False, ("image_range", "mean"))])
def test_what_only_some_checkpoints_show_is_told_of_the_others(tmp_path, own, hidden):
    state = edsr_names(EDSR(edsr_tiny(EDSR_VARIANTS["edsr-baseline-x2"].config)), own=own)
    assert set(loaded(state, tmp_path).trained["on_trust"]) == {"residual_scale", *hidden}
