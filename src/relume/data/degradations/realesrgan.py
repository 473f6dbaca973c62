"""Real-ESRGAN's second-order degradation: blur, resize, noise and JPEG, twice, and a filter that rings.

Wang, Xie, Dong, Shan, ICCV workshops 2021, arXiv:2107.10833; section 3 and figure 2. Every number below is in
the paper's section 4.1 or, where the paper is silent, in the authors' training settings
(https://github.com/xinntao/Real-ESRGAN, `options/train_realesrgan_x4plus.yml`), marked (*), or in their
code, marked (**).

Of one picture, in round 1 and 2:
- Blur, left out of round 2 with probability 1/5. Side 7, 9, … 21. With probability 1/10, a sinc filter of
  cutoff U(π/3, π), from side 13 on U(π/5, π) (**). Else Gaussian 0.7 (round 0.45, long 0.25 (*)), generalised
  Gaussian 0.15 (0.12 and 0.03 (*)) or plateau 0.15 (0.12 and 0.03 (*)); sigmas U(0.2, 3), in round 2
  U(0.2, 1.5); angle U(-π, π); shape of the generalised from 0.5 to 4 and of the plateau from 1 to 2, below
  and above 1 as likely (**).
- Resize, area, bilinear or bicubic: in round 1 larger 0.2, smaller 0.7 or equal 0.1 (*), by U(1, 1.5) or
  U(0.15, 1) (*); in round 2 larger 0.3, smaller 0.4 or equal 0.3 (*) than the final size, by U(1, 1.2) or
  U(0.3, 1) (*).
- Noise: Gaussian or Poisson, 0.5 each, gray with probability 0.4. Gaussian of U(1, 30) levels, in round 2
  U(1, 25); Poisson of strength U(0.05, 3), in round 2 U(0.05, 2.5).
- JPEG of quality U(30, 95).

In the second round, resizing to the final size and, with probability 0.8, a sinc filter of cutoff U(π/3, π)
(**) come together before or after the JPEG, as likely. The result is rounded to 8 bits.

Departs from the paper and its code:
- Everything is drawn for each picture by itself. The code draws resizings, kinds of noise and the last order
  once a batch, and makes up for it by a pool of 180 older pairs; no pool is needed here.
- The clean picture is not sharpened unless asked for: the authors sharpen targets too, and a degradation here
  makes the input alone.
- Pictures are clamped after each filter and resizing. The code clamps after noise and before JPEG alone, so
  that what bicubic and sinc overshoot by passes on to the steps between.
- Resizing follows OpenCV's conventions as in `bsrgan`; PyTorch's "area" takes whole pixels only.
- JPEG in PyTorch follows libjpeg where the authors' leaves out rounding, repeats chroma and fills with black.
- Blocks of JPEG begin anywhere in a patch by a drawn offset, as in `bsrgan`; the authors cut 256 pixels out
  of 400 afterwards, so that 18 low-resolution pixels are lost on each side on average. The margin here is 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeInt

from relume.data.degradations.base import DegradationConfig
from relume.data.degradations.bsrgan import draw_offset
from relume.data.degradations.drawing import Dice, DrawnDegradation, Step, Steps
from relume.data.degradations.kernels import Profile
from relume.data.degradations.resizing import Mode
from relume.data.degradations.steps import (
    Bivariate,
    Blur,
    GaussianNoise,
    Jpeg,
    Kernel,
    Resize,
    Round,
    ScaledPhotonNoise,
    Sharpen,
    Sinc,
)

MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")
_SIDES = range(7, 22, 2)
_KERNELS: tuple[tuple[Profile, bool], ...] = tuple(
    (profile, round_) for profile in ("gaussian", "generalised", "plateau") for round_ in (True, False)
)
_KERNEL_WEIGHTS = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_BETAS: dict[Profile, tuple[float, float]] = {"generalised": (0.5, 4), "plateau": (1, 2)}


@dataclass(frozen=True, kw_only=True)
class RoundNumbers:
    """The numbers of one round.

    Attributes:
        blur: probability of a blur.
        sigma: range of its sigmas, pixels.
        larger_smaller_equal: probabilities of the kinds of resizing.
        smallest: least factor of a resizing.
        largest: greatest factor.
        gaussian: range of the Gaussian noise, 8-bit levels.
        poisson: range of the Poisson noise's strength.
    """

    blur: float
    sigma: tuple[float, float]
    larger_smaller_equal: tuple[float, float, float]
    smallest: float
    largest: float
    gaussian: tuple[float, float]
    poisson: tuple[float, float]


FIRST = RoundNumbers(
    blur=1.0,
    sigma=(0.2, 3),
    larger_smaller_equal=(0.2, 0.7, 0.1),
    smallest=0.15,
    largest=1.5,
    gaussian=(1, 30),
    poisson=(0.05, 3),
)
SECOND = RoundNumbers(
    blur=0.8,
    sigma=(0.2, 1.5),
    larger_smaller_equal=(0.3, 0.4, 0.3),
    smallest=0.3,
    largest=1.2,
    gaussian=(1, 25),
    poisson=(0.05, 2.5),
)


class RealESRGANConfig(DegradationConfig):
    """Real-ESRGAN's degradation with its published probabilities.

    Attributes:
        sharpen: sharpen the clean picture first.
        margin: low-resolution pixels to cut off at each border afterwards.
    """

    name: Literal["realesrgan"] = "realesrgan"
    sharpen: bool = False
    margin: NonNegativeInt = 8

    def build(self, scale: int) -> RealESRGAN:
        """Return the degradation for one scale."""
        return RealESRGAN(scale, self)


class RealESRGAN(DrawnDegradation):
    """Damages each picture in its own way, see the file's head."""

    def __init__(self, scale: int, config: RealESRGANConfig) -> None:
        super().__init__(scale, config.margin)
        self.config = config

    def draw(self, dice: Dice) -> Steps:
        """Draw what happens to one picture."""
        sharpen: Steps = (Sharpen(),) if self.config.sharpen else ()
        ringing: Steps = (Resize(dice.choice(MODES), 1.0, "final"),)
        if dice.random() < 0.8:
            ringing += (Blur(Sinc(dice.choice(_SIDES), dice.uniform(math.pi / 3, math.pi))),)
        first = (*_draw_round(dice, FIRST, final=False), draw_jpeg(dice))
        second = _draw_round(dice, SECOND, final=True)
        jpeg: Steps = (draw_jpeg(dice),)
        last = ringing + jpeg if dice.random() < 0.5 else jpeg + ringing
        return (*sharpen, *first, *second, *last, Round())


def draw_kernel(dice: Dice, sigma: tuple[float, float]) -> Kernel:
    """Draw a blur kernel of a round, with its range of sigmas."""
    size = dice.choice(_SIDES)
    if dice.random() < 0.1:
        return Sinc(size, dice.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi))
    profile, is_round = dice.weighted(_KERNELS, _KERNEL_WEIGHTS)
    sigma_1 = dice.uniform(*sigma)
    sigma_2, angle = (sigma_1, 0.0) if is_round else (dice.uniform(*sigma), dice.uniform(-math.pi, math.pi))
    beta = 1.0
    if profile != "gaussian":
        low, high = _BETAS[profile]
        beta = dice.uniform(low, 1) if dice.random() < 0.5 else dice.uniform(1, high)
    return Bivariate(size, profile, sigma_1, sigma_2, angle, beta)


def draw_noise(dice: Dice, numbers: RoundNumbers) -> Step:
    """Draw the noise of a round."""
    if dice.random() < 0.5:
        return GaussianNoise(dice.uniform(*numbers.gaussian), gray=dice.random() < 0.4, seed=dice.seed())
    return ScaledPhotonNoise(dice.uniform(*numbers.poisson), gray=dice.random() < 0.4, seed=dice.seed())


def draw_jpeg(dice: Dice) -> Jpeg:
    """Draw a compression; its quality need not be whole, as it is done in PyTorch."""
    return Jpeg(dice.uniform(30, 95), draw_offset(dice), codec=False)


def _draw_round(dice: Dice, numbers: RoundNumbers, *, final: bool) -> Steps:
    """Draw blur, resizing (relative to the final size, or to the picture) and noise."""
    blur: Steps = (Blur(draw_kernel(dice, numbers.sigma)),) if dice.random() < numbers.blur else ()
    kind = dice.weighted(("larger", "smaller", "equal"), numbers.larger_smaller_equal)
    ranges = {"larger": (1.0, numbers.largest), "smaller": (numbers.smallest, 1.0), "equal": (1.0, 1.0)}
    low, high = ranges[kind]
    resize = Resize(dice.choice(MODES), dice.uniform(low, high), "final" if final else "picture")
    return (*blur, resize, draw_noise(dice, numbers))


CONFIG = RealESRGANConfig
