"""BSRGAN's practical degradation: two blurs, two shrinkings, noise and JPEG, shuffled, then JPEG again.

Zhang, Liang, Van Gool, Timofte, ICCV 2021, arXiv:2103.14006; section 3 and figure 1, with the numbers of the
authors' code (https://github.com/cszn/BSRGAN, `utils/utils_blindsr.py`), which trains what they publish.
For scale s, of one picture:

1. For s = 4, with probability 1/4: halve, by OpenCV (bilinear, bicubic or area) or by MATLAB's bicubic, and
   go on with s = 2.
2. Seven operations in random order, "settle" always after "shrink" (they change places else):
   - "blur", twice: half the time a round Gaussian of sigma U(0, 2 + s/5), else a long one of variances
     U(0, 4 + s) and angle U(0, π); side 7, 9, … 25.
   - "shrink": 3/4, by OpenCV by a factor U(1, 2s); 1/4, a round Gaussian of sigma U(0.1, 0.6 s), shifted, and
     the first pixel of each block.
   - "settle": to the final size by OpenCV.
   - "noise": Gaussian of 2 to 25 levels, in colour (2/5), gray (2/5) or with correlated channels (1/5).
   - "jpeg": quality 30 to 95, with probability 9/10.
   - "camera": a camera's sensor noise, with probability 1/4.
3. JPEG of quality 30 to 95.

Where the code departs from the paper, we follow the code: variances and sigmas have no lower limit (paper:
sigma from 0.1, long axes from 0.5), kernels reach 25 (paper: 21), the first JPEG has probability 9/10 (paper:
3/4), and correlated noise always has 25 levels, whatever was drawn.

Departs from the code:
- The authors' model of a camera is not published, and their code without it leaves "camera" out, as ours does
  unless asked for. Ours is that of `camera_noise`, a model of the same kind.
- Their random cut of the result, by which a block of JPEG may begin anywhere in a patch, is a drawn offset
  of the grid of blocks: patches are cut by whoever asks for them. The grids of the two JPEGs are independent.
- A margin of 8 pixels is cut off afterwards, so that fewer pixels know a mirrored border. The authors cut
  none. A rest of the border is left: two of the widest blurs after the strongest shrinking reach further.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeInt

from relume.core.card import Card, Task
from relume.data.degradations.base import DegradationConfig
from relume.data.degradations.drawing import Dice, DrawnDegradation, Step, Steps
from relume.data.degradations.jpeg import GRID
from relume.data.degradations.resizing import Mode
from relume.data.degradations.steps import (
    Anisotropic,
    Blur,
    Covariance,
    Decimate,
    GaussianNoise,
    HalveMatlab,
    Isotropic,
    Jpeg,
    PhotonNoise,
    Resize,
    SensorNoise,
)

CARD = Card(
    name="bsrgan",
    title="Designing a Practical Degradation Model for Deep Blind Image Super-Resolution",
    summary=(
        "How to damage clean pictures so that a network trained on them restores real ones: blurs, "
        "shrinkings, noise and JPEG with random settings in random order. The paper claims that an ESRGAN "
        "trained on it (BSRGAN) restores pictures of unknown damage, synthetic and real, better by far than "
        "networks trained on simpler degradations."
    ),
    when="To train, on clean photos, a network that shall restore photos of unknown damage.",
    venue="ICCV 2021",
    task=Task.SUPER_RESOLUTION,
    arxiv="2103.14006",
    code="https://github.com/cszn/BSRGAN",
)

Operation = Literal["blur", "blur again", "shrink", "settle", "noise", "jpeg", "camera"]
OPERATIONS: tuple[Operation, ...] = ("blur", "blur again", "shrink", "settle", "noise", "jpeg", "camera")
MODES: tuple[Mode, ...] = ("bilinear", "bicubic", "area")
_NOISE = (2, 25)
_QUALITY = (30, 95)


class BSRGANConfig(DegradationConfig):
    """BSRGAN's degradation with its published probabilities.

    Attributes:
        camera: with a camera's noise, see the file's head.
        margin: low-resolution pixels to cut off at each border afterwards.
    """

    name: Literal["bsrgan"] = "bsrgan"
    camera: bool = False
    margin: NonNegativeInt = 8

    def build(self, scale: int) -> BSRGAN:
        """Return the degradation for one scale."""
        return BSRGAN(scale, self)


class BSRGAN(DrawnDegradation):
    """Damages each picture in its own way, see the file's head."""

    def __init__(self, scale: int, config: BSRGANConfig) -> None:
        super().__init__(scale, config.margin)
        self.config = config

    def draw(self, dice: Dice) -> Steps:
        """Draw what happens to one picture, the numbers in the order of the authors' code."""
        steps: list[Step] = []
        scale = self.scale
        if scale == 4 and dice.random() < 0.25:
            steps.append(Resize(dice.choice(MODES), 0.5) if dice.random() < 0.5 else HalveMatlab())
            scale = 2
        for operation in draw_order(dice):
            match operation:
                case "blur" | "blur again":
                    steps.append(draw_blur(dice, scale))
                case "shrink":
                    steps.append(_draw_shrinking(dice, scale))
                case "settle":
                    steps.append(Resize(dice.choice(MODES), 1.0, "final"))
                case "noise":
                    steps.append(draw_gaussian_noise(dice))
                case "jpeg":
                    if dice.random() < 0.9:
                        steps.append(draw_jpeg(dice))
                case "camera":
                    # Drawn even where there is no camera, as in the authors' code.
                    if dice.random() < 0.25 and self.config.camera:
                        steps.append(SensorNoise(dice.seed()))
        return (*steps, draw_jpeg(dice))


def draw_order(dice: Dice) -> tuple[Operation, ...]:
    """Draw the order of the operations."""
    order = list(dice.shuffled(OPERATIONS))
    first, second = order.index("shrink"), order.index("settle")
    if first > second:
        order[first], order[second] = order[second], order[first]
    return tuple(order)


def draw_blur(dice: Dice, scale: int) -> Blur:
    """Draw a blur for a scale."""
    if dice.random() < 0.5:
        variances = [(4.0 + scale) * dice.random() for _ in range(2)]
        size = _draw_side(dice)
        return Blur(Anisotropic(size, dice.random() * torch.pi, *variances))
    return Blur(Isotropic(_draw_side(dice), (2.0 + 0.2 * scale) * dice.random()))


def draw_gaussian_noise(dice: Dice) -> GaussianNoise:
    """Draw Gaussian noise in colour, gray or with correlated channels."""
    return _draw_noise(dice, speckle=False)


def draw_speckle(dice: Dice) -> GaussianNoise:
    """Draw speckle in colour, gray or with correlated channels."""
    return _draw_noise(dice, speckle=True)


def draw_photon_noise(dice: Dice) -> PhotonNoise:
    """Draw Poisson noise of 100 to 10,000 photons, as likely in each magnitude, in colour or gray."""
    peak = 10 ** (2 * dice.random() + 2.0)
    return PhotonNoise(peak, gray=dice.random() >= 0.5, seed=dice.seed())


def draw_jpeg(dice: Dice) -> Jpeg:
    """Draw a compression by the real codec."""
    quality = dice.integer(*_QUALITY)
    return Jpeg(quality, draw_offset(dice))


def draw_offset(dice: Dice) -> tuple[int, int]:
    """Draw where a picture begins in JPEG's grid of blocks."""
    return divmod(dice.seed() % GRID**2, GRID)


def _draw_side(dice: Dice) -> int:
    return 2 * dice.integer(2, 11) + 3


def _draw_shrinking(dice: Dice, scale: int) -> Step:
    if dice.random() < 0.75:
        factor = 1 / dice.uniform(1, 2 * scale)
        return Resize(dice.choice(MODES), factor)
    return Decimate(scale, dice.uniform(0.1, 0.6 * scale))


def _draw_noise(dice: Dice, *, speckle: bool) -> GaussianNoise:
    level = dice.integer(*_NOISE)
    kind = dice.random()
    covariance = None if kind > 0.6 or kind < 0.4 else _draw_covariance(dice)
    return GaussianNoise(level, gray=kind < 0.4, seed=dice.seed(), covariance=covariance, speckle=speckle)


def _draw_covariance(dice: Dice) -> Covariance:
    """Draw |L² Uᵀ D U|: D diagonal, uniform; U the orthonormal columns of a uniform matrix; L 25 levels."""
    spread = torch.diag(dice.matrix(3))
    axes = torch.linalg.svd(dice.matrix(3, 3))[0]
    red, green, blue = ((_NOISE[1] / 255) ** 2 * (axes.T @ spread @ axes)).abs().tolist()
    return (tuple(red), tuple(green), tuple(blue))


CONFIG = BSRGANConfig
