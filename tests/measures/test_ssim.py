"""SSIM against the paper's formula written out window by window."""

import numpy as np
import pytest
import torch

from relume.measures.ssim import ssim


def _by_windows(x, y, peak):
    """Wang et al. 2004, eq. 13-16, with the centred (not the raw-moment) variances."""
    i = np.arange(-5, 6)
    window = np.exp(-(i[:, None] ** 2 + i**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = (picture[row : row + 11, column : column + 11] for picture in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a = (window * (a - mean_a) ** 2).sum()
            variance_b = (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
            values.append(top / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))
    return np.mean(values)


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_equals_the_formula(peak):
    generator = np.random.default_rng(0)
    target = generator.random((17, 23)) * peak
    output = np.clip(target + generator.normal(0, 0.2 * peak, target.shape), 0, peak)
    actual = ssim(torch.from_numpy(output), torch.from_numpy(target), peak=peak)
    assert actual == pytest.approx(_by_windows(output, target, peak), abs=1e-10)
    assert actual < 0.95


def test_planes_are_averaged():
    generator = torch.Generator().manual_seed(3)
    output, target = (torch.rand(3, 12, 14, generator=generator) * 255 for _ in range(2))
    each = [ssim(output[c], target[c]) for c in range(3)]
    assert ssim(output, target) == pytest.approx(sum(each) / 3, abs=1e-12)
    assert max(each) - min(each) > 1e-3


def test_equal_is_one_and_inputs_are_left_alone():
    picture = torch.rand(11, 11, dtype=torch.float64) * 255
    before = picture.clone()
    assert ssim(picture, picture) == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(picture, before)


def test_refusals():
    with pytest.raises(ValueError, match="11×11"):
        ssim(torch.rand(10, 40), torch.rand(10, 40))
    with pytest.raises(ValueError, match="equal shapes"):
        ssim(torch.rand(12, 12), torch.rand(12, 13))
