"""Real-ESRGAN's degradation draws what paper and authors' settings say."""

import math
from collections import Counter

import pytest
import torch
from test_bsrgan import assert_uniform, frequency, steps_of

from relume.data.degradations.drawing import Dice
from relume.data.degradations.noise import to_levels
from relume.data.degradations.realesrgan import RealESRGANConfig
from relume.data.degradations.steps import (
    Bivariate,
    Blur,
    GaussianNoise,
    Jpeg,
    Resize,
    Round,
    ScaledPhotonNoise,
    Sharpen,
    Sinc,
)

DRAWS = 4000
KINDS = {"gaussian": 0.7, "generalised": 0.15, "plateau": 0.15}
ROUND = {"gaussian": 0.45 / 0.7, "generalised": 0.12 / 0.15, "plateau": 0.12 / 0.15}


def halves(steps):
    """Split a chain after the first round's JPEG, and the second after its noise."""
    first = next(i for i, step in enumerate(steps) if isinstance(step, Jpeg)) + 1
    noisy = [i for i, step in enumerate(steps) if isinstance(step, GaussianNoise | ScaledPhotonNoise)]
    return steps[:first], steps[first : noisy[1] + 1], steps[noisy[1] + 1 :]


@pytest.fixture(scope="module")
def rounds():
    degradation = RealESRGANConfig().build(4)
    dice = Dice(torch.Generator().manual_seed(1))
    return [list(some) for some in zip(*(halves(degradation.draw(dice)) for _ in range(DRAWS)), strict=True)]


@pytest.mark.parametrize(("number", "sigma", "share"), [(0, (0.2, 3), 1.0), (1, (0.2, 1.5), 0.8)])
def test_blurs_of_a_round(rounds, number, sigma, share):
    kernels = [step.kernel for step in steps_of(rounds[number], Blur)]
    assert len(kernels) / DRAWS == pytest.approx(share, abs=0.03)
    sides = Counter(kernel.size for kernel in kernels)
    assert set(sides) == set(range(7, 22, 2))
    assert all(count / len(kernels) == pytest.approx(1 / 8, abs=0.03) for count in sides.values())
    ringing = [kernel for kernel in kernels if isinstance(kernel, Sinc)]
    assert len(ringing) / len(kernels) == pytest.approx(0.1, abs=0.02)
    for lowest, some in ((3, [k for k in ringing if k.size < 13]), (5, [k for k in ringing if k.size >= 13])):
        assert_uniform([kernel.cutoff for kernel in some], math.pi / lowest, math.pi)
    others = [kernel for kernel in kernels if isinstance(kernel, Bivariate)]
    assert_uniform([kernel.sigma_1 for kernel in others], *sigma)
    for profile, likely in KINDS.items():
        some = [kernel for kernel in others if kernel.profile == profile]
        assert len(some) / len(others) == pytest.approx(likely, abs=0.03)
        long = [kernel for kernel in some if kernel.sigma_1 != kernel.sigma_2]
        assert 1 - len(long) / len(some) == pytest.approx(ROUND[profile], abs=0.07)
        assert_uniform([kernel.sigma_2 for kernel in long], *sigma)
        assert_uniform([kernel.angle for kernel in long], -math.pi, math.pi)
    shapes = [kernel.beta for kernel in others if kernel.profile == "generalised"]
    assert frequency(shapes, lambda beta: beta < 1) == pytest.approx(0.5, abs=0.09)
    assert_uniform([beta for beta in shapes if beta < 1], 0.5, 1)
    assert_uniform([beta for beta in shapes if beta > 1], 1, 4)
    plateaus = [kernel.beta for kernel in others if kernel.profile == "plateau"]
    assert frequency(plateaus, lambda beta: beta == 1) == pytest.approx(0.5, abs=0.09)
    assert_uniform([beta for beta in plateaus if beta > 1], 1, 2)


@pytest.mark.parametrize(
    ("number", "relative_to", "likely", "smallest", "largest"),
    [(0, "picture", (0.2, 0.7), 0.15, 1.5), (1, "final", (0.3, 0.4), 0.3, 1.2)],
)
def test_resizings_of_a_round(rounds, number, relative_to, likely, smallest, largest):
    found = steps_of(rounds[number], Resize)
    assert len(found) == DRAWS
    assert {step.relative_to for step in found} == {relative_to}
    modes = Counter(step.mode for step in found)
    assert all(
        modes[mode] / DRAWS == pytest.approx(1 / 3, abs=0.03) for mode in ("area", "bilinear", "bicubic")
    )
    larger, smaller = ([step.factor for step in found if sign * step.factor > sign] for sign in (1, -1))
    assert (len(larger) / DRAWS, len(smaller) / DRAWS) == pytest.approx(likely, abs=0.03)
    assert_uniform(larger, 1, largest)
    assert_uniform(smaller, smallest, 1)


@pytest.mark.parametrize(
    ("number", "levels", "strengths"), [(0, (1, 30), (0.05, 3)), (1, (1, 25), (0.05, 2.5))]
)
def test_noise_of_a_round(rounds, number, levels, strengths):
    gaussian, poisson = (steps_of(rounds[number], kind) for kind in (GaussianNoise, ScaledPhotonNoise))
    assert len(gaussian) + len(poisson) == DRAWS
    assert len(gaussian) / DRAWS == pytest.approx(0.5, abs=0.03)
    assert_uniform([step.level for step in gaussian], *levels)
    assert_uniform([step.strength for step in poisson], *strengths)
    for some in (gaussian, poisson):
        assert frequency(some, lambda step: step.gray) == pytest.approx(0.4, abs=0.04)


def test_the_end(rounds):
    last = rounds[2]
    assert all(steps[-1] == Round() for steps in last)
    assert frequency(last, lambda steps: isinstance(steps[0], Jpeg)) == pytest.approx(0.5, abs=0.03)
    ringing = [step.kernel for step in steps_of(last, Blur)]
    assert len(ringing) / DRAWS == pytest.approx(0.8, abs=0.03)
    assert_uniform([kernel.cutoff for kernel in ringing], math.pi / 3, math.pi)
    for steps in last:
        kinds = [type(step) for step in steps[:-1] if not isinstance(step, Blur)]
        assert kinds in ([Jpeg, Resize], [Resize, Jpeg])
        blurred = [i for i, step in enumerate(steps) if isinstance(step, Blur)]
        assert all(isinstance(steps[i - 1], Resize) for i in blurred)
    qualities = [step.quality for some in rounds for step in steps_of(some, Jpeg)]
    assert_uniform(qualities, 30, 95)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_picture_comes_out_small_and_in_whole_levels(scale, channels):
    high = torch.rand(6, channels, 9 * scale, 5 * scale, generator=torch.Generator().manual_seed(scale))
    degradation = RealESRGANConfig().build(scale)
    low = degradation(high, generator=torch.Generator().manual_seed(3))
    assert low.shape == (6, channels, 9, 5)
    assert torch.equal(low, to_levels(low))
    assert torch.equal(low, degradation(high, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(low, degradation(high, generator=torch.Generator().manual_seed(4)))


def test_sharpening_is_asked_for():
    steps = RealESRGANConfig(sharpen=True).build(4).draw(Dice(torch.Generator().manual_seed(0)))
    assert steps[0] == Sharpen()
