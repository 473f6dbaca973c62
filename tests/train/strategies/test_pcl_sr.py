"""Laws of PCL-SR's pieces, and that strategies are found. What the authors' code gives is in the goldens."""

import math
from pkgutil import iter_modules

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from relume.core.catalogue import systems
from relume.train import strategies
from relume.train.strategies.pcl_sr import blur, contrast, dual_contrast, enlarged, sharpen

SIDES = st.integers(1, 9)
ODD = st.integers(0, 5).map(lambda reach: 2 * reach + 1)


def test_every_strategy_has_a_card_in_the_catalogue():
    names = [info.name for info in iter_modules(strategies.__path__)]
    assert names
    for name in names:
        assert systems()[name].module == f"relume.train.strategies.{name}"
    assert systems()["pcl_sr"].card["arxiv"] == "2111.13924"


@given(SIDES, SIDES, ODD, ODD, st.floats(0.1, 2.0), st.floats(0.1, 2.0))
def test_blurring_keeps_size_flat_pictures_and_the_range(height, width, down, right, sigma_down, sigma_right):
    pictures = torch.rand(2, 3, height, width)
    settings = {"sides": (down, right), "sigmas": (sigma_down, sigma_right)}
    blurred = blur(pictures, **settings)
    assert blurred.shape == pictures.shape
    assert (blurred.amin() >= pictures.amin() - 1e-6) & (blurred.amax() <= pictures.amax() + 1e-6)
    flat = torch.full_like(pictures, 0.3)
    assert torch.allclose(blur(flat, **settings), flat, atol=1e-6)


@given(SIDES, SIDES, st.floats(0.5, 3.0))
def test_sharpening_by_one_changes_nothing_and_more_leaves_the_border(height, width, factor):
    pictures = torch.rand(2, 3, height, width)
    assert torch.allclose(sharpen(pictures, torch.ones(2)), pictures, atol=1e-6)
    sharp = sharpen(pictures, torch.tensor([1.0, factor]))
    assert torch.allclose(sharp[0], pictures[0], atol=1e-6)
    assert sharp.amin() >= 0
    assert sharp.amax() <= 1
    border = torch.ones(height, width, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert torch.equal(sharp[..., border], pictures[..., border])


def test_the_input_is_enlarged_corner_on_corner_and_left_alone_where_it_fits():
    low, high = torch.rand(1, 3, 4, 5), torch.rand(1, 3, 12, 10)
    large = enlarged(low, high)
    assert large.shape == high.shape
    assert torch.allclose(
        large[..., [0, 0, -1, -1], [0, -1, 0, -1]], low[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    )
    assert large.amin() >= 0
    assert large.amax() <= 1
    assert enlarged(high, high) is high


@pytest.mark.parametrize("kind", ["info-nce", "lmcl", "ratio", "cosine", "l2", "l1"])
def test_the_order_of_samples_does_not_matter(kind):
    torch.manual_seed(0)
    output, *others = ([torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)] for _ in range(6))
    near, far = others[:2], others[2:]
    value = contrast(kind, output, near, far)
    assert contrast(kind, output, near[::-1], far[::-1]).item() == pytest.approx(value.item(), rel=1e-5)
    assert contrast(kind, output, far[:2], near + far[2:]).item() != pytest.approx(value.item(), rel=1e-5)


def test_info_nce_of_equal_samples_is_the_logarithm_of_their_number():
    output, other = [torch.randn(2, 3, 4, 4)], [torch.randn(2, 3, 4, 4)]
    assert contrast("info-nce", output, [other] * 2, [other] * 4).item() == pytest.approx(math.log(5))
    assert contrast("lmcl", output, [other] * 2, [other] * 4).item() == pytest.approx(math.log(4))


@given(st.integers(1, 4), st.integers(1, 4), st.floats(-50, 50))
def test_the_dual_contrast_is_two_cross_entropies_and_sees_differences_alone(reals, fakes, shift):
    real = torch.randn(reals, 1, 2, 2, dtype=torch.float64)
    fake = torch.randn(fakes, 1, 2, 2, dtype=torch.float64)

    def half(ones, others):
        logits = torch.cat((ones[:, None], others.expand(len(ones), -1)), 1)
        return F.cross_entropy(logits, torch.zeros(len(ones), dtype=torch.long))

    expected = half(real.flatten(), fake.flatten()) + half(-fake.flatten(), -real.flatten())
    assert dual_contrast(real, fake).item() == pytest.approx(expected.item())
    assert dual_contrast(real + shift, fake + shift).item() == pytest.approx(expected.item())
    assert dual_contrast(real + 1, fake) < expected
