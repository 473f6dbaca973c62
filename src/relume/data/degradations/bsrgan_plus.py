"""BSRGAN+: the pieces of BSRGAN in a chain of two rounds like Real-ESRGAN's, shuffled half the time.

From the authors of BSRGAN, who published it with their code only (https://github.com/cszn/BSRGAN,
`degradation_bsrgan_plus`); the numbers are that code's. Two rounds of blur, resizing, noise and camera noise,
with a JPEG between them, then a resizing to the final size and a JPEG. With probability `shuffle`, the
thirteen operations of the rounds come in any order; else blur and resizing lead each round and only its
noises change places. A resizing grows by U(1, 2) (1/5), shrinks by U(1 / 2s, 1) (7/10) or keeps the size;
noise is always Gaussian as in `bsrgan`, and with probability 1/10 each, Poisson and speckle come on top.

Departs from the code: see `bsrgan`; and clean pictures are not sharpened unless asked for. The code sharpens
target and input alike, and a degradation here makes the input alone. The authors' own training (KAIR,
`train_bsrgan_x4_psnr.json`) does not sharpen either, and shuffles with probability 1/10.
"""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt

from relume.data.degradations.base import DegradationConfig
from relume.data.degradations.bsrgan import (
    MODES,
    draw_blur,
    draw_gaussian_noise,
    draw_jpeg,
    draw_photon_noise,
    draw_speckle,
)
from relume.data.degradations.drawing import Dice, DrawnDegradation, Step, Steps
from relume.data.degradations.ranges import Share
from relume.data.degradations.steps import Resize, SensorNoise, Sharpen

Operation = Literal["blur", "resize", "gaussian", "poisson", "speckle", "camera", "jpeg"]
_NOISES: tuple[Operation, ...] = ("gaussian", "poisson", "speckle", "camera")
OPERATIONS: tuple[Operation, ...] = ("blur", "resize", *_NOISES, "jpeg", "blur", "resize", *_NOISES)


class BSRGANPlusConfig(DegradationConfig):
    """BSRGAN+ with its published probabilities.

    Attributes:
        shuffle: probability of any order.
        sharpen: sharpen the clean picture first.
        camera: with a camera's noise, with probability 1/10 in each round, see `bsrgan`.
        margin: low-resolution pixels to cut off at each border afterwards.
    """

    name: Literal["bsrgan-plus"] = "bsrgan-plus"
    shuffle: Share = 0.5
    sharpen: bool = False
    camera: bool = False
    margin: NonNegativeInt = 8

    def build(self, scale: int) -> BSRGANPlus:
        """Return the degradation for one scale."""
        return BSRGANPlus(scale, self)


class BSRGANPlus(DrawnDegradation):
    """Damages each picture in its own way, see the file's head."""

    def __init__(self, scale: int, config: BSRGANPlusConfig) -> None:
        super().__init__(scale, config.margin)
        self.config = config

    def draw(self, dice: Dice) -> Steps:
        """Draw what happens to one picture, the numbers in the order of the authors' code."""
        steps: list[Step] = [Sharpen()] if self.config.sharpen else []
        for operation in draw_order(dice, self.config.shuffle):
            match operation:
                case "blur":
                    steps.append(draw_blur(dice, self.scale))
                case "resize":
                    steps.append(_draw_resizing(dice, self.scale))
                case "gaussian":
                    steps.append(draw_gaussian_noise(dice))
                case "poisson":
                    if dice.random() < 0.1:
                        steps.append(draw_photon_noise(dice))
                case "speckle":
                    if dice.random() < 0.1:
                        steps.append(draw_speckle(dice))
                case "jpeg":
                    steps.append(draw_jpeg(dice))
                case "camera":
                    # Drawn even where there is no camera, as in the authors' code.
                    if dice.random() < 0.1 and self.config.camera:
                        steps.append(SensorNoise(dice.seed()))
        return (*steps, Resize(dice.choice(MODES), 1.0, "final"), draw_jpeg(dice))


def draw_order(dice: Dice, shuffle: float) -> tuple[Operation, ...]:
    """Draw the order of the operations, any with probability `shuffle`."""
    if dice.random() < shuffle:
        return dice.shuffled(OPERATIONS)
    first, second = (dice.shuffled(_NOISES) for _ in range(2))
    return ("blur", "resize", *first, "jpeg", "blur", "resize", *second)


def _draw_resizing(dice: Dice, scale: int) -> Resize:
    kind = dice.random()
    factor = dice.uniform(1, 2) if kind > 0.8 else dice.uniform(0.5 / scale, 1) if kind < 0.7 else 1.0
    return Resize(dice.choice(MODES), factor)


CONFIG = BSRGANPlusConfig
