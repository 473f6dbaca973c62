"""Kernels, filtering and resizing: what must hold whatever the settings."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from relume.core.errors import ConfigError
from relume.data.degradations import kernels
from relume.data.degradations.blur import BlurConfig, convolve
from relume.data.degradations.resizing import imresize, resize
from relume.data.degradations.sharpening import sharpened
from relume.data.degradations.sinc import sinc
from relume.nn.resize import imresize as imresize_to

sides = st.sampled_from(range(7, 26, 2))
sigmas = st.floats(0, 8)
angles = st.floats(-math.pi, math.pi)


@settings(max_examples=60, deadline=None)
@given(
    sides, sigmas, sigmas, angles, st.sampled_from(["gaussian", "generalised", "plateau"]), st.floats(0.5, 4)
)
def test_every_kernel_sums_to_one_about_its_middle(size, sigma_1, sigma_2, angle, profile, beta):
    settings_ = {"sigma_1": sigma_1, "sigma_2": sigma_2, "angle": angle}
    kernel = kernels.bivariate(size, **settings_, profile=profile, beta=beta)
    assert kernel.shape == (size, size)
    assert kernel.sum().item() == pytest.approx(1)
    assert (kernel >= 0).all()
    assert torch.allclose(kernel, kernel.flip(0, 1), atol=1e-12)
    assert kernel.argmax() == size * size // 2 or torch.isclose(kernel.max(), kernel[size // 2, size // 2])
    assert torch.allclose(kernel.T, kernels.bivariate(
        size, sigma_1=sigma_1, sigma_2=sigma_2, angle=math.pi / 2 - angle, profile=profile, beta=beta
    ), atol=1e-9)  # fmt: skip


def test_a_long_kernel_lies_along_its_angle():
    """Second moments are those asked for, x to the right and y down."""
    kernel = kernels.anisotropic(41, angle=0.5, variance_1=9.0, variance_2=1.0)
    x = torch.arange(41, dtype=torch.float64) - 20
    xx, yy, xy = (kernel * x**2).sum(), (kernel * x[:, None] ** 2).sum(), (kernel * x * x[:, None]).sum()
    c, s = math.cos(0.5), math.sin(0.5)
    assert (xx.item(), yy.item(), xy.item()) == pytest.approx(
        (9 * c * c + s * s, 9 * s * s + c * c, 8 * c * s), 1e-3
    )
    same = kernels.bivariate(41, sigma_1=3.0, sigma_2=1.0, angle=0.5)
    assert torch.allclose(kernel, same)


def test_a_sinc_keeps_what_lies_below_its_cutoff():
    wave = torch.cos(0.5 * torch.arange(200, dtype=torch.float64)).expand(200, 200)[None]
    for cutoff, left in ((1.5, 1.0), (0.25, 0.0)):
        kernel = sinc(61, cutoff)
        assert kernel.sum().item() == pytest.approx(1)
        filtered = convolve(wave, kernel, border="edge")[:, 60:140, 60:140]
        assert filtered.abs().max().item() == pytest.approx(left, abs=0.15)
    assert sinc(21, 1.5).min() < -1e-3


def test_doubling_a_kernel_is_filtering_twice():
    """Shrinking by two twice with a kernel is shrinking by four once with its double, but for its cut rim."""
    kernel = kernels.gaussian(7, 1.0)
    x = torch.rand(1, 64, 64, dtype=torch.float64)
    twice = convolve(convolve(x, kernel)[:, ::2, ::2], kernel)[:, ::2, ::2]
    once = convolve(x, kernels.doubled(kernel))[:, ::4, ::4]
    assert (twice - once)[:, 3:-3, 3:-3].abs().max() < 2e-3


@pytest.mark.parametrize("border", ["mirror", "edge", "wrap"])
def test_filtering_is_pytorchs(border):
    mode = {"mirror": "reflect", "edge": "replicate", "wrap": "circular"}[border]
    x, kernel = torch.rand(2, 3, 20, 17), torch.rand(2, 7, 7)
    spread = F.pad(x, (3, 3, 3, 3), mode=mode).reshape(1, 6, 26, 23)
    expected = F.conv2d(spread, kernel.repeat_interleave(3, 0)[:, None], groups=6).reshape(x.shape)
    assert torch.allclose(convolve(x, kernel.flip(1, 2), border=border), expected, atol=1e-4)


def test_a_picture_may_be_smaller_than_the_kernel():
    kernel = kernels.gaussian(25, 3.0)
    for height, width in ((1, 1), (1, 5), (3, 2)):
        x = torch.full((3, height, width), 0.7)
        for border in ("mirror", "edge", "wrap"):
            assert torch.allclose(convolve(x, kernel, border=border), x, atol=1e-5)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match=r"odd side.*\(4, 4\)"):
        convolve(torch.rand(3, 9, 9), torch.rand(4, 4))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 150), st.integers(1, 150), st.integers(1, 150), st.integers(1, 150),
    st.sampled_from(["nearest", "bilinear", "bicubic", "area"]),
)  # fmt: skip
def test_resizing_keeps_one_colour(height, width, rows, columns, mode):
    x = torch.full((1, height, width), 0.3)
    resized = resize(x, height=rows, width=columns, mode=mode)
    assert resized.shape == (1, rows, columns)
    # OpenCV leaves slivers of pixels out of an average without making up for them.
    assert torch.allclose(resized, torch.full_like(resized, 0.3), atol=1e-3)


@pytest.mark.parametrize(
    ("mode", "theirs"), [("bilinear", "bilinear"), ("bicubic", "bicubic"), ("nearest", "nearest")]
)
def test_resizing_is_pytorchs_where_they_agree(mode, theirs):
    x = torch.rand(1, 3, 100, 70)
    for size in ((150, 90), (37, 41), (100, 70)):
        settings_ = {} if mode == "nearest" else {"align_corners": False}
        expected = F.interpolate(x, size=size, mode=theirs, **settings_)
        ours = resize(x, height=size[0], width=size[1], mode=mode)
        assert torch.allclose(ours, expected, atol=1e-5)
    half = resize(x, height=25, width=35, mode="area")
    assert torch.allclose(half, F.avg_pool2d(x, (4, 2)), atol=1e-6)


def test_matlabs_factor_is_its_size_where_that_is_whole():
    x = torch.rand(3, 130, 60, dtype=torch.float64)
    assert torch.allclose(imresize(x, 0.5), imresize_to(x, height=65, width=30))
    assert imresize(x, 1 / 7).shape == (3, 19, 9)


def test_resizing_lets_gradients_pass_and_refuses_nothing():
    with torch.inference_mode():
        resize(torch.rand(1, 11, 13), height=5, width=6, mode="bicubic")
    x = torch.rand(1, 11, 13, dtype=torch.float64, requires_grad=True)
    resize(x, height=5, width=6, mode="bicubic").sum().backward()
    assert x.grad is not None
    with pytest.raises(ValueError, match="11×13 to 0×6"):
        resize(x, height=0, width=6, mode="area")


def test_sharpening_leaves_what_is_smooth():
    x = torch.linspace(0.2, 0.8, 64).expand(3, 64, 64)
    assert torch.allclose(sharpened(x, threshold=60), x)
    edge = (torch.arange(64) >= 32).float().mul(0.5).add(0.25).expand(3, 64, 64)
    sharp = sharpened(edge)
    assert sharp.max() > 0.8
    assert sharp.min() < 0.2


def test_plain_blur_knows_its_reach():
    config = BlurConfig(sigma=(0.5, 1.5))
    blur = config.build(1)
    x = torch.rand(1, 3, 40, 40)
    whole, part = (blur(each, generator=torch.Generator().manual_seed(1)) for each in (x, x[..., 5:35, 5:35]))
    m = blur.margin
    assert torch.allclose(whole[..., 5 + m : 35 - m, 5 + m : 35 - m], part[..., m:-m, m:-m], atol=1e-6)
    assert np.isclose(part.mean(), x.mean(), atol=0.05)


def test_a_noisy_kernel_is_the_smooth_one_but_for_the_noise_of_each_value():
    point = torch.zeros(2, 1, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1.0
    smooth, noisy = (
        BlurConfig(sigma=(1.5, 3.0), kernel_noise=noise).build(1)(
            point, generator=torch.Generator().manual_seed(2)
        )[..., 11:30, 11:30]
        for noise in (0.0, 0.25)
    )
    assert torch.allclose(noisy.sum((2, 3)), torch.ones(2, 1, dtype=torch.float64))
    # The middle of a Gaussian, where FFT leaves no error worth speaking of.
    ratio = (noisy / smooth)[..., 6:13, 6:13]
    assert ratio.max() <= 1.25 / 0.75
    assert ratio.min() >= 0.75 / 1.25
    assert (ratio.amax((2, 3)) > 1.15).all()
    assert (ratio.amin((2, 3)) < 0.85).all()
    # Each picture has noise of its own.
    assert (ratio[0] - ratio[1]).abs().max() > 0.2
    with pytest.raises(ConfigError, match=r"kernel_noise is of Gaussians, and kernels are given"):
        BlurConfig.parse({"kernels": "here", "kernel_noise": 0.25}, where="test")
