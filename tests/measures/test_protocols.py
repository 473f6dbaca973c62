"""Protocols: what is rounded, what is cut, which channels count."""

import math

import pytest
import torch

from relume.core.errors import UnknownNameError
from relume.measures.protocols import protocol
from relume.measures.spectra import measure_cube


@pytest.fixture
def target():
    levels = torch.randint(0, 256, (3, 24, 28), generator=torch.Generator().manual_seed(4))
    return levels.float() / 255


def test_found_by_name():
    assert all(protocol(name).name == name for name in ("cube", "sr-rgb", "sr-y"))
    with pytest.raises(UnknownNameError, match="did you mean 'sr-y'"):
        protocol("sr_y")


@pytest.mark.parametrize("name", ["sr-y", "sr-rgb"])
def test_equal_pictures_are_perfect(name, target):
    scores = protocol(name).measure(target, target, 4)
    assert tuple(scores) == protocol(name).figures
    assert scores == {"psnr": math.inf, "ssim": pytest.approx(1)}


@pytest.mark.parametrize("name", ["sr-y", "sr-rgb"])
def test_output_is_clamped_and_rounded_first(name, target):
    exact = (target * 255).round()
    nudged = (exact + 0.4) / 255
    nudged[exact == 255] = 7.0
    nudged[exact == 0] = -7.0
    assert protocol(name).measure(nudged, target, 2)["psnr"] == math.inf
    assert protocol(name).measure((exact + 0.6) / 255, target, 2)["psnr"] < 60


def test_exactly_the_border_is_cut(target):
    framed = torch.zeros_like(target)
    framed[:, 3:-3, 3:-3] = target[:, 3:-3, 3:-3]
    assert protocol("sr-y").measure(framed, target, 3)["psnr"] == math.inf
    for row, column in [(3, 9), (-4, 9), (9, 3), (9, -4)]:
        spoiled = framed.clone()
        spoiled[:, row, column] = 1 - target[:, row, column].round()
        assert protocol("sr-y").measure(spoiled, target, 3)["psnr"] < 60


def test_luma_and_colour_weigh_channels_differently():
    target = torch.full((3, 16, 16), 100 / 255)
    blue, green = target.clone(), target.clone()
    blue[2] += 20 / 255
    green[1] += 20 / 255
    in_rgb = 10 * math.log10(255**2 / (20**2 / 3))
    for output, weight in ((blue, 24.966), (green, 128.553)):
        luma = protocol("sr-y").measure(output, target, 1)["psnr"]
        assert luma == pytest.approx(20 * math.log10(255 / (20 * weight / 255)), abs=1e-6)
        assert protocol("sr-rgb").measure(output, target, 1)["psnr"] == pytest.approx(in_rgb, abs=1e-6)


def test_gray_counts_as_it_is_and_replicated_gray_as_rgb():
    target = torch.full((1, 16, 16), 100 / 255)
    output = target + 5 / 255
    plain = protocol("sr-y").measure(output, target, 1)["psnr"]
    assert plain == pytest.approx(20 * math.log10(255 / 5), abs=1e-6)
    replicated = protocol("sr-y").measure(output.expand(3, -1, -1), target.expand(3, -1, -1), 1)["psnr"]
    assert replicated - plain == pytest.approx(20 * math.log10(255 / 219), abs=1e-6)


def test_refusals_name_the_shapes(target):
    with pytest.raises(ValueError, match=r"\(3, 24, 27\) but target is \(3, 24, 28\)"):
        protocol("sr-y").measure(target[..., :-1], target, 4)
    with pytest.raises(ValueError, match="needs 19 pixels"):
        protocol("sr-y").measure(target[:, :18], target[:, :18], 4)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        protocol("sr-y").measure(target[:2], target[:2], 4)


def test_cubes_are_measured_as_floats_of_any_number_of_bands():
    torch.manual_seed(0)
    target = torch.rand(7, 12, 13)
    output = target + 1e-4
    scores = protocol("cube").measure(output, target, 4)
    assert {*scores} == {*protocol("cube").figures}
    assert scores == measure_cube(output, target)
    assert scores["psnr"] == pytest.approx(80, abs=0.1)  # 8 bits would hide the difference
    assert protocol("cube").smallest_side(4) == 11
    with pytest.raises(ValueError, match="1 or 3 channels"):
        protocol("sr-y").measure(output, target, 0)
    with pytest.raises(ValueError, match="needs 11 pixels"):
        protocol("cube").measure(output[:, :10], target[:, :10], 0)
