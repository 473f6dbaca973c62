"""Figures for cubes, against cases worked out by hand."""

import math

import pytest
import torch

from relume.measures.psnr import psnr
from relume.measures.spectra import measure_cube, spectral_angle


def test_the_angle_is_that_between_spectra_whatever_their_brightness():
    target = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]])
    output = torch.tensor([[[3.0, 0.5, 1.0]], [[0.0, 0.0, 1.0]]])
    assert spectral_angle(target, target) == pytest.approx(0, abs=1e-5)
    # 0 and 45 degrees; the third pixel is black.
    assert spectral_angle(output, target) == pytest.approx(22.5)


def test_figures_are_means_over_bands_of_what_a_file_would_hold():
    torch.manual_seed(0)
    target = torch.rand(4, 15, 13)
    output = target + torch.tensor([0.01, 0.02, 0.05, 0.4])[:, None, None]
    found = measure_cube(output, target)
    clipped = output.clamp(0, 1)
    bands = [psnr(clipped[band], target[band], peak=1.0) for band in range(4)]
    assert found["psnr"] == pytest.approx(sum(bands) / 4)
    assert found["psnr"] != pytest.approx(psnr(clipped, target, peak=1.0), abs=0.1)
    assert 0 < found["ssim"] < 1
    assert found["sam"] == pytest.approx(spectral_angle(clipped, target))
    assert measure_cube(target, target)["psnr"] == math.inf


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="compares cubes"):
        spectral_angle(torch.rand(3, 4), torch.rand(3, 4))
    with pytest.raises(ValueError, match="not black"):
        spectral_angle(torch.zeros(3, 4, 4), torch.rand(3, 4, 4))
