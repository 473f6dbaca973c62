"""BSRGAN: the authors' whole pipeline from their own random numbers, and how often what is drawn."""

import dataclasses
import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from recorded import CASES, GOLDEN, close, hwc, planes, read_case

from relume.core.catalogue import systems
from relume.data.degradations import noise
from relume.data.degradations.bsrgan import BSRGANConfig, draw_order
from relume.data.degradations.bsrgan_plus import BSRGANPlusConfig
from relume.data.degradations.drawing import Dice, describe
from relume.data.degradations.steps import (
    Anisotropic,
    Blur,
    Decimate,
    GaussianNoise,
    HalveMatlab,
    Isotropic,
    Jpeg,
    PhotonNoise,
    Resize,
    SensorNoise,
    Sharpen,
)

PIPELINES = [path for path in CASES if path.stem.startswith("pipeline")]
PRODUCED = ("ndimage.convolve", "cv2.resize", "cv2.imdecode")
FIELDS = ("np.random.normal", "np.random.multivariate_normal", "np.random.poisson")


class RecordedDice:
    """Gives the numbers that the authors' code drew, in their order; refuses any other question."""

    def __init__(self, trace, tensors):
        self.draws = [entry for entry in trace if entry["call"] not in (*PRODUCED, *FIELDS)]
        self.tensors = tensors
        self.place = 0

    def take(self, *calls):
        entry = self.draws[self.place]
        assert entry["call"] in calls, f"draw {self.place} of the authors is {entry}"
        self.place += 1
        return entry

    def random(self):
        return self.take("random.random", "np.random.rand")["result"]

    def uniform(self, low, high):
        entry = self.take("random.uniform")
        assert entry["args"] == pytest.approx([low, high])
        return entry["result"]

    def integer(self, low, high):
        entry = self.take("random.randint")
        assert entry["args"] == [low, high]
        return entry["result"]

    def choice(self, options):
        entry = self.take("random.choice")
        return options[entry["args"][0].index(entry["result"])]

    def shuffled(self, items):
        entry = self.take("random.sample")
        return tuple(items[entry["args"][0].index(number)] for number in entry["result"])

    def matrix(self, *shape):
        entry = self.take("np.random.rand")
        assert tuple(entry["args"]) == shape
        value = self.tensors[entry["tensor"]] if "tensor" in entry else torch.tensor(entry["result"])
        return value.double().reshape(shape)

    def seed(self):
        return 0  # noise is recorded, and JPEG's blocks begin with the picture


@dataclasses.dataclass(frozen=True)
class RecordedNoise:
    """A step of ours with the numbers that the authors' code drew for its pixels."""

    step: object
    field: torch.Tensor

    def __call__(self, picture, low):
        field = planes(self.field.float()) if self.field.ndim == 3 else self.field.float()[None]
        if isinstance(self.step, GaussianNoise):
            combine = noise.multiplied if self.step.speckle else noise.added
            return combine(picture, field)
        levels = noise.to_levels(picture)
        light = noise.to_levels(noise.luma(levels)) if self.step.gray else levels
        return (levels + field / self.step.peak - light).clamp(0, 1)


@pytest.mark.skipif(not PIPELINES, reason="the authors' outputs (shared/golden) are not at hand")
@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_reproduces_the_authors_whole_pipeline(path):
    case = read_case(path)
    trace = json.loads(case["output.trace_json"].numpy().tobytes())
    kwargs = case["kwargs"]
    scale, patch = kwargs["sf"], kwargs["lq_patchsize"]
    dice = RecordedDice(trace, case)
    if case["class"] == "degradation_bsrgan_plus":
        degradation = BSRGANPlusConfig(sharpen=kwargs.get("use_sharp", True)).build(scale)
    else:
        degradation = BSRGANConfig().build(scale)
    steps = degradation.draw(dice)
    fields = iter([case[entry["tensor"]] for entry in trace if entry["call"] in FIELDS])
    noisy = (GaussianNoise, PhotonNoise)
    steps = [RecordedNoise(step, next(fields)) if isinstance(step, noisy) else step for step in steps]
    assert next(fields, None) is None

    high = planes(case["input"])
    high = high[..., : high.shape[-2] // scale * scale, : high.shape[-1] // scale * scale]
    low_size = tuple(side // scale for side in high.shape[-2:])
    seen, picture = [], high
    for step in steps:
        picture = step(picture, low_size)
        seen.append(picture)
    produced = [entry for entry in trace if entry["call"] in PRODUCED]
    ours = [out for step, out in zip(steps, seen, strict=True) if isinstance(step, Blur | Resize | Jpeg)]
    for entry, out in zip(produced, ours, strict=True):
        recorded = case[entry["tensor"]]
        if entry["call"] == "cv2.imdecode":
            recorded = recorded.flip(-1).float() / 255
        close(hwc(out), recorded.clamp(0, 1), entry["tensor"])

    top, left = (dice.take("random.randint")["result"] for _ in range(2))
    assert dice.place == len(dice.draws)
    close(hwc(picture[:, top : top + patch, left : left + patch]), case["output.lq"], "output.lq")
    clean = seen[0] if isinstance(steps[0], Sharpen) else high
    clean = clean[:, top * scale : (top + patch) * scale, left * scale : (left + patch) * scale]
    close(hwc(clean), case["output.hq"], "output.hq")


DRAWS = 4000
"""How many chains are drawn; a frequency then errs by less than 0.03 in 1 of 10,000 cases."""


def drawn(config, scale=4, count=DRAWS):
    degradation = config.build(scale)
    dice = Dice(torch.Generator().manual_seed(1))
    return [degradation.draw(dice) for _ in range(count)]


def steps_of(draws, kind):
    return [step for steps in draws for step in steps if isinstance(step, kind)]


def frequency(steps, condition):
    steps = list(steps)
    return sum(map(condition, steps)) / len(steps)


def assert_uniform(values, low, high):
    """Compare with the uniform distribution by the largest distance of the two cumulative ones."""
    places = np.sort((np.asarray(list(values)) - low) / (high - low))
    assert places[0] >= 0
    assert places[-1] <= 1
    # Both ends are reached; a gap of 12 mean distances comes 1 in 160,000 times.
    assert max(places[0], 1 - places[-1]) < 12 / len(places)
    distance = np.abs(places - (np.arange(len(places)) + 0.5) / len(places)).max()
    assert distance < 2.2 / math.sqrt(len(places)), distance  # 1 in 8,000 by chance (Kolmogorov)


@pytest.fixture(scope="module")
def draws():
    return drawn(BSRGANConfig())


def test_operations_stand_as_often_in_each_place_as_in_the_authors_code():
    facts = GOLDEN / "facts.json"
    if not facts.exists():
        pytest.skip("the authors' outputs (shared/golden) are not at hand")
    published = json.loads(facts.read_text())["distributions"]["position_frequency_of_each_op"]
    dice = Dice(torch.Generator().manual_seed(2))
    names = ["blur", "blur again", "shrink", "settle", "noise", "jpeg", "camera"]
    counts = np.zeros((7, 7))
    for _ in range(20_000):
        for place, operation in enumerate(draw_order(dice)):
            counts[names.index(operation), place] += 1
    assert np.abs(counts / 20_000 - published).max() < 0.015


def test_a_quarter_is_halved_first_and_only_at_scale_four(draws):
    def halved(steps):
        return steps[0] == HalveMatlab() or (isinstance(steps[0], Resize) and steps[0].factor == 0.5)

    assert frequency(draws, halved) == pytest.approx(0.25, abs=0.03)
    first = [steps[0] for steps in draws if halved(steps)]
    assert frequency(first, lambda step: step == HalveMatlab()) == pytest.approx(0.5, abs=0.06)
    assert not any(halved(steps) for steps in drawn(BSRGANConfig(), 2, 500))
    assert not any(halved(steps) for steps in drawn(BSRGANConfig(), 3, 500))


@pytest.mark.parametrize("scale", [2, 3])
def test_blurs_are_drawn_as_published(scale):
    kernels = [step.kernel for step in steps_of(drawn(BSRGANConfig(), scale), Blur)]
    assert len(kernels) == 2 * DRAWS
    assert frequency(kernels, lambda kernel: isinstance(kernel, Anisotropic)) == pytest.approx(0.5, abs=0.03)
    long = [kernel for kernel in kernels if isinstance(kernel, Anisotropic)]
    round_ = [kernel for kernel in kernels if isinstance(kernel, Isotropic)]
    assert_uniform([kernel.variance_1 for kernel in long], 0, 4 + scale)
    assert_uniform([kernel.variance_2 for kernel in long], 0, 4 + scale)
    assert_uniform([kernel.angle for kernel in long], 0, math.pi)
    assert_uniform([kernel.sigma for kernel in round_], 0, 2 + 0.2 * scale)
    assert (
        abs(np.corrcoef([(kernel.variance_1, kernel.variance_2) for kernel in long], rowvar=False)[0, 1])
        < 0.07
    )
    for some in (long, round_):
        sides = Counter(kernel.size for kernel in some)
        assert set(sides) == set(range(7, 26, 2))
        assert all(count / len(some) == pytest.approx(0.1, abs=0.02) for count in sides.values())


def test_shrinkings_are_drawn_as_published():
    draws = drawn(BSRGANConfig(), 2)
    resizes = steps_of(draws, Resize)
    shrinking = [step for step in resizes if step.relative_to == "picture"]
    decimating = steps_of(draws, Decimate)
    assert len(shrinking) + len(decimating) == DRAWS
    assert len(shrinking) / DRAWS == pytest.approx(0.75, abs=0.03)
    assert_uniform([1 / step.factor for step in shrinking], 1, 4)
    assert_uniform([step.sigma for step in decimating], 0.1, 1.2)
    assert {step.block for step in decimating} == {2}
    settling = [step for step in resizes if step.relative_to == "final"]
    assert len(settling) == DRAWS
    assert all(step.factor == 1 for step in settling)
    for some in (shrinking, settling):
        modes = Counter(step.mode for step in some)
        assert set(modes) == {"bilinear", "bicubic", "area"}
        assert all(count / len(some) == pytest.approx(1 / 3, abs=0.04) for count in modes.values())
    for steps in draws:
        order = [
            getattr(step, "relative_to", "picture") for step in steps if isinstance(step, Resize | Decimate)
        ]
        assert order == ["picture", "final"]


def test_after_halving_every_range_is_that_of_scale_two(draws):
    halved = [steps for steps in draws if steps[0] == HalveMatlab()]
    assert {step.block for step in steps_of(halved, Decimate)} == {2}
    whole = [step.kernel for step in steps_of(halved, Blur)]
    assert max(kernel.sigma for kernel in whole if isinstance(kernel, Isotropic)) <= 2.4
    assert max(kernel.variance_1 for kernel in whole if isinstance(kernel, Anisotropic)) <= 6


def test_noise_is_drawn_as_published(draws):
    found = steps_of(draws, GaussianNoise)
    assert len(found) == DRAWS
    assert frequency(found, lambda step: step.gray) == pytest.approx(0.4, abs=0.03)
    assert frequency(found, lambda step: step.covariance is not None) == pytest.approx(0.2, abs=0.03)
    assert not any(step.gray and step.covariance for step in found)
    levels = Counter(step.level for step in found)
    assert set(levels) == set(range(2, 26))
    assert all(count / DRAWS == pytest.approx(1 / 24, abs=0.014) for count in levels.values())
    covariances = np.array([step.covariance for step in found if step.covariance])
    assert (covariances >= 0).all()
    # A rotation keeps the trace: three uniform numbers times (25/255)².
    trace = np.trace(covariances, axis1=1, axis2=2) / (25 / 255) ** 2
    assert trace.mean() == pytest.approx(1.5, abs=0.06)
    assert trace.std() == pytest.approx(0.5, abs=0.05)


def test_jpeg_is_drawn_as_published(draws):
    assert all(isinstance(steps[-1], Jpeg) for steps in draws)
    assert frequency(draws, lambda steps: len(steps_of([steps], Jpeg)) == 2) == pytest.approx(0.9, abs=0.02)
    found = steps_of(draws, Jpeg)
    qualities = Counter(step.quality for step in found)
    assert set(qualities) == set(range(30, 96))
    assert all(count / len(found) == pytest.approx(1 / 66, abs=0.006) for count in qualities.values())
    assert {step.offset for step in found} == {(row, column) for row in range(16) for column in range(16)}


def test_the_camera_is_left_out_unless_asked_for(draws):
    assert not steps_of(draws, SensorNoise)
    assert frequency(
        drawn(BSRGANConfig(camera=True)), lambda steps: bool(steps_of([steps], SensorNoise))
    ) == (pytest.approx(0.25, abs=0.03))


def test_plus_is_drawn_as_published():
    draws = drawn(BSRGANPlusConfig(), 4)
    for kind, share in ((PhotonNoise, 0.1), (GaussianNoise, 1.0), (Blur, 1.0)):
        found = [step for step in steps_of(draws, kind) if not getattr(step, "speckle", False)]
        assert len(found) / (2 * DRAWS) == pytest.approx(share, abs=0.02)
    speckles = [step for step in steps_of(draws, GaussianNoise) if step.speckle]
    assert len(speckles) / (2 * DRAWS) == pytest.approx(0.1, abs=0.02)
    photons = steps_of(draws, PhotonNoise)
    assert_uniform([math.log10(step.peak) for step in photons], 2, 4)
    assert frequency(photons, lambda step: step.gray) == pytest.approx(0.5, abs=0.08)
    factors = [step.factor for step in steps_of(draws, Resize) if step.relative_to == "picture"]
    assert len(factors) == 2 * DRAWS
    larger, smaller = ([f for f in factors if f > 1], [f for f in factors if f < 1])
    assert len(larger) / len(factors) == pytest.approx(0.2, abs=0.03)
    assert len(smaller) / len(factors) == pytest.approx(0.7, abs=0.03)
    assert_uniform(larger, 1, 2)
    assert_uniform(smaller, 1 / 8, 1)
    # In any order, a blur comes first as often as two of 7.4 steps do (blurs, resizings, noises, JPEG).
    led = frequency(draws, lambda steps: isinstance(steps[0], Blur))
    assert led == pytest.approx(0.5 + 0.5 * 2 / 7.4, abs=0.035)
    never = drawn(BSRGANPlusConfig(shuffle=0), 4, 200)
    assert all(isinstance(steps[0], Blur) and isinstance(steps[1], Resize) for steps in never)


@pytest.mark.parametrize(
    "config", [BSRGANConfig(), BSRGANConfig(camera=True), BSRGANPlusConfig(sharpen=True)]
)
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_picture_comes_out_small_and_in_range(config, scale, channels):
    high = torch.rand(4, channels, 9 * scale, 5 * scale, generator=torch.Generator().manual_seed(scale))
    before = high.clone()
    low = config.build(scale)(high, generator=torch.Generator().manual_seed(3))
    assert low.shape == (4, channels, 9, 5)
    assert low.dtype == torch.float32
    assert 0 <= low.min() <= low.max() <= 1
    assert torch.equal(high, before)
    assert torch.equal(low, config.build(scale)(high, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(low, config.build(scale)(high, generator=torch.Generator().manual_seed(4)))


def test_what_was_drawn_can_be_told_compared_and_applied_again():
    degradation = BSRGANConfig().build(4)
    one, same, other = (degradation.draw(Dice(torch.Generator().manual_seed(seed))) for seed in (5, 5, 6))
    assert one == same != other
    assert describe(one).endswith(str(one[-1]))
    assert "JPEG" in describe(one)
    picture = torch.rand(3, 64, 64)
    assert torch.equal(degradation.apply(picture, one), degradation.apply(picture, same))


def test_a_picture_of_one_colour_stays_so_but_for_noise():
    degradation = BSRGANConfig().build(4)
    dice = Dice(torch.Generator().manual_seed(7))
    for _ in range(20):
        steps = tuple(step for step in degradation.draw(dice) if not isinstance(step, GaussianNoise))
        low = degradation.apply(torch.full((3, 48, 64), 0.4), steps)
        assert (low - 0.4).abs().max() < 2 / 255


def test_the_card_is_found():
    assert systems()["bsrgan"].module == "relume.data.degradations.bsrgan"
    assert systems()["bsrgan"].card["arxiv"] == "2103.14006"
