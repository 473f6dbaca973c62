"""A file that is of no network we know, or does not fit it: one clear line tells what it is nearest to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_swinir import authors_names

from relume.core.errors import CheckpointError
from relume.models import zoo
from relume.models.super_resolution.swinir import VARIANTS, SwinIR, tiny


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
