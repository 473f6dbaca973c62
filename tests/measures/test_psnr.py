"""PSNR against its definition."""

import math

import pytest
import torch

from relume.measures.psnr import psnr


def test_one_level_everywhere():
    target = torch.full((3, 4, 5), 100.0)
    assert psnr(target + 1, target) == pytest.approx(20 * math.log10(255), abs=1e-12)
    assert psnr((target + 1) / 255, target / 255, peak=1) == pytest.approx(48.1308, abs=1e-4)


def test_joint_error_not_mean_of_channels():
    target = torch.zeros(2, 1, 1)
    output = torch.tensor([3.0, 4.0]).reshape(2, 1, 1)
    assert psnr(output, target) == pytest.approx(10 * math.log10(255**2 / 12.5))


def test_equal_is_infinite_and_shapes_must_agree():
    assert psnr(torch.ones(2, 2), torch.ones(2, 2)) == math.inf
    with pytest.raises(ValueError, match=r"\(2, 2\) with \(2, 3\)"):
        psnr(torch.ones(2, 2), torch.ones(2, 3))
    with pytest.raises(ValueError, match="equal shapes"):
        psnr(torch.ones(0), torch.ones(0))
