"""One damage among several: each as likely as the others, told truly, and exactly what it is alone."""

import pytest
import torch

from relume.core.errors import ConfigError
from relume.data.degradations.base import Telling, picture_generator
from relume.data.degradations.haze import HazeConfig
from relume.data.degradations.motion_blur import MotionBlurConfig
from relume.data.degradations.noise import NoiseConfig
from relume.data.degradations.one_of import OneOfConfig

KINDS = (HazeConfig(), NoiseConfig(level=20), MotionBlurConfig())


def told(config, high, seed=0):
    degradation = config.build(1)
    assert isinstance(degradation, Telling)
    return degradation.tell(high, generator=torch.Generator().manual_seed(seed))


def test_what_is_told_is_what_happened():
    high = torch.rand(12, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    low, kinds = told(OneOfConfig(kinds=KINDS), high)
    generator = torch.Generator().manual_seed(0)
    for picture, damaged, kind in zip(high, low, kinds.tolist(), strict=True):
        own = picture_generator(generator)
        torch.randint(len(KINDS), (), generator=own)
        assert torch.equal(KINDS[kind].build(1)(picture[None], generator=own)[0], damaged)


def test_calling_damages_as_telling_does():
    high = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    config = OneOfConfig(kinds=KINDS)
    called = config.build(1)(high, generator=torch.Generator().manual_seed(4))
    assert torch.equal(called, told(config, high, seed=4)[0])


def test_each_kind_is_as_likely():
    _, kinds = told(OneOfConfig(kinds=(NoiseConfig(),) * 4), torch.rand(1600, 1, 2, 2))
    counts = torch.bincount(kinds, minlength=4)
    # Four standard deviations of a count that 400 are expected of.
    assert ((counts - 400).abs() <= 4 * (1600 * 0.25 * 0.75) ** 0.5).all()


def test_the_widest_margin_holds():
    blur = MotionBlurConfig().build(1)
    assert blur.margin > 0
    assert OneOfConfig(kinds=KINDS).build(1).margin == blur.margin


@pytest.mark.parametrize(
    ("kinds", "says"),
    [(["haze", "bicubic"], "bicubic makes pictures smaller"), ([], "kinds"), (["hase"], "'haze'")],
)
def test_what_cannot_be_mixed_is_refused(kinds, says):
    with pytest.raises(ConfigError, match=says):
        OneOfConfig.parse({"kinds": kinds}, where="degradation")
