"""Losses of plain pictures: each against its formula, at equality, under growing damage, and its gradient."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.core.choices import ChosenFrom
from relume.core.errors import ConfigError
from relume.measures import losses
from relume.measures.losses.base import PACKAGE
from relume.measures.losses.edge import laplacian_distance, sobel_distance
from relume.measures.losses.flat import flat
from relume.measures.losses.focal_frequency import focal_frequency
from relume.measures.losses.frequency import complex_distance, magnitude_distance
from relume.measures.losses.grid import grid
from relume.measures.losses.ms_ssim import WEIGHTS, ms_ssim_loss
from relume.measures.losses.pixel import charbonnier
from relume.measures.losses.ssim import ssim_loss
from relume.measures.losses.total_variation import total_variation
from relume.measures.ssim import ssim
from relume.nn.encoders.opening import no_models

CHOICES = ChosenFrom(PACKAGE, "loss")
# Of these tests' pictures, which are small.
SETTINGS = {"ms-ssim": {"scales": 2}}
# Those that look at features have tests of their own; so have total variation, which sees no target, the
# grid, which sees only what repeats, and what is drawn where the target is flat.
BY_NAME = {
    name: SETTINGS.get(name, {})
    for name in CHOICES.names()
    if "encoder" not in CHOICES.named(name).model_fields and name not in ("flat", "grid", "total-variation")
}


def build(name, **settings):
    return CHOICES.named(name)(name=name, **settings).build(no_models)


def pictures(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(*shape, generator=generator, dtype=dtype) for _ in range(2)]


def smooth(side=48):
    rows = torch.linspace(0, 6, side, dtype=torch.float64)
    picture = 0.5 + 0.4 * torch.sin(rows[:, None]) * torch.cos(1.3 * rows)
    return picture.expand(1, 3, side, side).contiguous()


def gaussian(picture, sigma):
    """Blur as if the picture went round, which takes from every frequency more with sigma."""
    down, right = (torch.fft.fftfreq(side, dtype=picture.dtype) for side in picture.shape[-2:])
    kept = torch.exp(-2 * (math.pi * sigma) ** 2 * (down[:, None] ** 2 + right**2))
    return torch.fft.ifft2(torch.fft.fft2(picture) * kept).real


def test_every_loss_is_found_by_its_file():
    folder = Path(losses.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "\nCONFIG = " in path.read_text(encoding="utf-8")}
    assert {"l1", "ssim", "total-variation", "perceptual"} <= set(CHOICES.names())
    assert {CHOICES.named(name).__module__.rpartition(".")[2] for name in CHOICES.names()} == files


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("l1", lambda d: np.abs(d).mean()),
        ("mse", lambda d: (d**2).mean()),
        ("charbonnier", lambda d: np.sqrt(d**2 + 1e-6).mean()),
    ],
)
def test_pixel_distances_are_the_formulas(name, formula):
    output, target = pictures(2, 3, 5, 4)
    assert build(name)(output, target).item() == pytest.approx(formula((output - target).numpy()))


def test_spectra_are_compared_as_written():
    output, target = pictures(2, 3, 6, 7)
    first, second = (np.fft.rfft2(x.numpy()) / math.sqrt(6 * 7) for x in (output, target))
    parts = (np.abs((first - second).real).mean() + np.abs((first - second).imag).mean()) / 2
    assert complex_distance(output, target).item() == pytest.approx(parts)
    magnitudes = np.abs(np.abs(first) - np.abs(second)).mean()
    assert magnitude_distance(output, target).item() == pytest.approx(magnitudes)


def test_magnitudes_do_not_see_a_shift_and_the_complex_spectrum_does():
    picture = pictures(1, 3, 8, 8)[0]
    moved = picture.roll((2, 3), (-2, -1))
    assert magnitude_distance(moved, picture) < 1e-12
    assert complex_distance(moved, picture) > 0.05


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_focal_frequency_is_the_papers(alpha):
    output, target = pictures(2, 3, 6, 5)
    distance = np.abs(np.fft.fft2(output.numpy(), norm="ortho") - np.fft.fft2(target.numpy(), norm="ortho"))
    weight = distance**alpha / (distance**alpha).max((-2, -1), keepdims=True)
    assert focal_frequency(output, target, alpha=alpha).item() == pytest.approx((weight * distance**2).mean())


def test_edges_are_compared_as_written():
    output, target = pictures(1, 1, 6, 5)
    d = np.pad((output - target)[0, 0].numpy(), 1, mode="edge")
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    laplacian = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])

    def at_each_place(kernel):
        return np.array([[(d[i : i + 3, j : j + 3] * kernel).sum() for j in range(5)] for i in range(6)])

    slopes = (np.abs(at_each_place(sobel)).mean() + np.abs(at_each_place(sobel.T)).mean()) / 2
    assert sobel_distance(output, target).item() == pytest.approx(slopes)
    bends = np.sqrt(at_each_place(laplacian) ** 2 + 1e-6).mean()
    assert laplacian_distance(output, target).item() == pytest.approx(bends)


def test_a_ramp_has_its_slope():
    ramp = 0.01 * torch.arange(50.0, dtype=torch.float64).expand(1, 1, 50, 50)
    # Half of what is averaged is the slope across, which is 0; at both borders the slope is halved.
    assert sobel_distance(ramp, torch.zeros_like(ramp)).item() == pytest.approx(0.005 * 49 / 50)


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_ssim_is_one_less_the_measure(peak):
    output, target = pictures(2, 3, 17, 23)
    loss = ssim_loss(output * peak, target * peak, peak=peak).item()
    assert loss == pytest.approx(1 - ssim(output * peak, target * peak, peak=peak), abs=1e-12)
    single = ssim_loss(output.float() * peak, target.float() * peak, peak=peak).item()
    assert single == pytest.approx(loss, abs=1e-5)


def test_one_scale_of_many_is_ssim():
    output, target = pictures(1, 1, 14, 15)
    output = (output + target) / 2
    assert ms_ssim_loss(output, target, scales=1) == pytest.approx(ssim_loss(output, target).item())


def test_ms_ssim_is_the_papers_product():
    target = pictures(1, 1, 50, 47)[0]
    output = (target + 0.2 * pictures(1, 1, 50, 47, seed=1)[0]).clamp(0, 1)
    i = np.arange(-5, 6)
    window = np.exp(-(i[:, None] ** 2 + i**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = 0.01**2, 0.03**2

    def factors(x, y):
        """Luminance times contrast-structure, and the latter alone, window by window."""
        whole, structure = [], []
        for row in range(x.shape[0] - 10):
            for column in range(x.shape[1] - 10):
                a, b = (plane[row : row + 11, column : column + 11] for plane in (x, y))
                p, q = (window * a).sum(), (window * b).sum()
                v, w = (window * (a - p) ** 2).sum(), (window * (b - q) ** 2).sum()
                cs = (2 * (window * (a - p) * (b - q)).sum() + c2) / (v + w + c2)
                structure.append(cs)
                whole.append(cs * (2 * p * q + c1) / (p * p + q * q + c1))
        return np.mean(whole), np.mean(structure)

    def halved(x):
        x = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
        return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4

    x, y = output[0, 0].numpy(), target[0, 0].numpy()
    weights = np.array(WEIGHTS[:3]) / sum(WEIGHTS[:3])
    product = factors(x, y)[1] ** weights[0]
    x, y = halved(x), halved(y)
    product *= factors(x, y)[1] ** weights[1]
    x, y = halved(x), halved(y)
    product *= factors(x, y)[0] ** weights[2]
    assert ms_ssim_loss(output, target, scales=3).item() == pytest.approx(1 - product, abs=1e-10)


def test_the_published_weights_sum_to_one():
    assert sum(WEIGHTS) == pytest.approx(1, abs=1e-3)


def test_a_picture_and_its_negative_still_have_a_gradient():
    target = smooth()
    output = (1 - target).requires_grad_()
    loss = ms_ssim_loss(output, target, scales=3)
    loss.backward()
    assert loss <= 1
    assert output.grad.isfinite().all()


def test_total_variation_is_the_steps():
    picture = torch.tensor([[[[0.0, 1.0, 1.0], [0.5, 0.5, 0.5]]]])
    assert total_variation(picture).item() == pytest.approx(0.5 + 0.25)
    assert total_variation(torch.full((1, 3, 4, 5), 0.3)) == 0
    assert total_variation(torch.rand(1, 3, 1, 1)) == 0


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_equal_pictures_cost_nothing(name):
    picture = smooth()
    least = 1e-3 if name == "charbonnier" else 0.0
    assert build(name, **BY_NAME[name])(picture, picture.clone()).item() == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("name", sorted(BY_NAME))
@pytest.mark.parametrize("damage", ["noise", "blur"])
def test_more_damage_costs_more(name, damage):
    target = smooth() + 0.1 * pictures(1, 3, 48, 48)[0]
    loss = build(name, **BY_NAME[name])
    costs = []
    for strength in (0, 1, 2, 4):
        if damage == "noise":
            noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(2), dtype=target.dtype)
            output = target + 0.03 * strength * noise
        else:
            output = gaussian(target, 0.5 * strength)
        costs.append(loss(output, target).item())
    assert all(first < second for first, second in pairwise(costs)), costs


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("charbonnier", {}), ("frequency", {}), ("frequency", {"part": "magnitude"}), ("focal-frequency", {}),
        ("edge", {}), ("edge", {"operator": "laplacian"}), ("ssim", {}), ("ms-ssim", {"scales": 1}),
        ("total-variation", {}), ("grid", {"period": 2}), ("grid", {"period": 3, "window": 2}),
        ("flat", {"window": 5, "level": 0.5}),
    ],
)  # fmt: skip
def test_gradients_are_right(name, more):
    output, target = pictures(1, 2, 12, 6 if name == "grid" else 11)
    loss = build(name, **more)
    if name == "focal-frequency":
        # Its weight takes no gradient by definition, so the difference quotient holds it where it is.
        d = torch.fft.fft2(output - target, norm="ortho").abs()
        weight = d / d.amax((-2, -1), keepdim=True)

        def fixed(x):
            return (weight * torch.fft.fft2(x - target, norm="ortho").abs().square()).mean()

        output.requires_grad_()
        (ours,) = torch.autograd.grad(loss(output, target), output)
        (theirs,) = torch.autograd.grad(fixed(output), output)
        assert torch.allclose(ours, theirs)
        return
    assert torch.autograd.gradcheck(lambda x: loss(x, target), output.requires_grad_())


def test_gradients_of_several_scales_are_right():
    output, target = pictures(1, 1, 23, 22)
    output = 0.7 * target + 0.3 * output
    assert torch.autograd.gradcheck(lambda x: ms_ssim_loss(x, target, scales=2), output.requires_grad_())


@given(
    name=st.sampled_from(sorted(BY_NAME)),
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
    height=st.integers(22, 40),
    width=st.integers(22, 40),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_gives_a_finite_scalar_that_knows_no_order_of_the_batch(
    name, batch, channels, height, width, seed
):
    output, target = pictures(batch, channels, height, width, seed=seed)
    loss = build(name, **BY_NAME[name])
    value = loss(output, target)
    assert value.shape == ()
    assert value.isfinite()
    assert value > 0
    assert loss(output.flip(0), target.flip(0)).item() == pytest.approx(value.item(), rel=1e-9)
    parts = [loss(output[i : i + 1], target[i : i + 1]).item() for i in range(batch)]
    assert sum(parts) / batch == pytest.approx(value.item(), rel=1e-9)


@pytest.mark.parametrize("name", ["frequency", "focal-frequency", "edge", "ssim", "ms-ssim"])
def test_shapes_that_differ_are_refused(name):
    with pytest.raises(ValueError, match="compares two pictures"):
        build(name)(torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 1))


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [
        ("ssim", 10, "needs patches of 11 pixels a side, got 30×10; raise data.patch"),
        ("ms-ssim", 100, "5 scales needs patches of 176 pixels a side, got 120×100; set its scales to 4"),
        ("ms-ssim", 8, "raise data.patch"),
    ],
)
def test_patches_too_small_are_told_with_the_way_out(name, side, said):
    with pytest.raises(ConfigError, match=said):
        build(name)(*pictures(1, 1, side, side + 20))


def test_charbonnier_is_smooth_at_nought():
    output = torch.zeros(1, 1, 2, 2, requires_grad=True)
    charbonnier(output, torch.zeros(1, 1, 2, 2)).backward()
    assert (output.grad == 0).all()


def test_grid_is_what_the_places_of_cells_have_on_average():
    output, target = pictures(2, 3, 8, 12)
    away = (output - target).view(2, 3, 4, 2, 6, 2)  # rows of cells, in a cell, columns of cells, in a cell
    means = torch.stack(
        [away[:, :, top : top + 3, :, left : left + 3].mean((2, 4)) for top in range(2) for left in range(4)]
    )
    wanted = (means - means.mean((-2, -1), keepdim=True)).abs().mean()
    assert torch.allclose(grid(output, target, period=2, window=3), wanted)


def test_grid_sees_a_faint_pattern_and_not_noise_or_a_shift():
    (target, _), noise = pictures(1, 1, 64, 64), torch.randn(1, 1, 64, 64, dtype=torch.float64)
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(32, 32) * 0.01
    assert grid(target + pattern, target, period=2).item() == pytest.approx(0.01)
    assert grid(target + 0.2, target, period=2).item() == pytest.approx(0, abs=1e-12)
    assert grid(target + 0.01 * noise, target, period=2, window=16) < 0.001
    assert grid(target, target, period=2) == 0


def test_grid_refuses_a_period_that_is_not_the_cells():
    with pytest.raises(ConfigError, match="3 does not divide"):
        grid(*pictures(1, 1, 8, 8), period=3)


def test_flat_is_what_differs_from_its_window_where_the_target_does_not():
    output, target = pictures(1, 2, 7, 8)
    wanted = []
    for top in range(5):
        for left in range(6):
            place = (..., slice(top, top + 3), slice(left, left + 3))
            variance = target[place].var((-2, -1), unbiased=False).mean()
            rest = (output - target)[place]
            drawn = (rest[..., 1, 1] - rest.mean((-2, -1))).abs()
            wanted.append(math.exp(-variance / 0.3**2) * drawn.mean())
    assert flat(output, target, window=3, level=0.3).item() == pytest.approx(sum(wanted).item() / len(wanted))


def test_flat_sees_a_faint_hatching_on_a_wall_and_not_beside_texture_or_a_shade():
    wall = torch.full((1, 3, 40, 40), 0.5, dtype=torch.float64)
    texture = pictures(1, 3, 40, 40)[0]
    hatching = 0.01 * torch.sin(torch.arange(40.0, dtype=torch.float64) * 2 * math.pi / 5).expand(
        1, 3, 40, 40
    )
    shade = torch.linspace(0, 0.2, 40, dtype=torch.float64).expand(1, 3, 40, 40)
    assert flat(wall + hatching, wall) > 0.005
    assert flat(texture + hatching, texture) < 1e-12
    assert flat(wall + shade, wall).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("window", [4, 9])
def test_flat_refuses_a_window_that_does_not_fit(window):
    with pytest.raises(ConfigError, match="window must be odd and fit"):
        flat(*pictures(1, 1, 8, 8), window=window)
