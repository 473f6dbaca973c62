"""PCL-SR: an output should be like sharpened targets and unlike blurred ones, in a discriminator's eyes.

Wu, Jiang, Liu, IEEE TNNLS 2023, arXiv:2111.13924, with the numbers of the authors' code and scripts
(https://github.com/Aitical/PCL-SISR). For each batch of inputs and targets:

1. Samples. Positives are the target and some sharpened ones; negatives the input, enlarged, and some blurred
   targets. A sharpening has a factor for each picture, a blur one kernel for the whole batch.
2. Features of output, positives and negatives, by a discriminator that sees the wavelet's details
   (`nn.discriminators.pcl`), in training mode: each set of samples is normed by its own statistics.
3. `contrast`: with p and n the similarities of the output's features to those of a positive and a negative,
   the mean over positives, pictures and layers of -log(eᵖ / (eᵖ + Σ eⁿ)), or one of its kin.
4. The discriminator learns to tell targets, and sharpened ones, from outputs, and blurred ones, by
   `dual_contrast`.

The network's loss is that of pixels plus the weighted contrast; `objectives.contrastive` puts it together.

Shapes: B batch, C channels, H W size, L layers, features B F h w. Ranges: pictures 0..1.

Departs from the authors' code:
- There the output's features are taken without a gradient (`Adversarial.forward`, and so
  `MultiContrastiveLoss`), so that no part of the contrast reaches the network: it learns by pixels alone. The
  paper means it to learn by the contrast; here it does.
- There the discriminator takes its step before the network is judged, here after, as all partners do; and
  the target passes it once less here, which only its running statistics notice, and nothing asks for these.
- There the optimiser of the discriminator never follows the schedule, as nothing calls it; here it does.
- Two kinds cannot run there: "ratio" with several positives, and other pictures' negatives (`strangers`)
  with "l1". Here every kind takes any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from relume.core.card import Card, Task
from relume.core.config import Config
from relume.data.degradations.blur import extended
from relume.data.degradations.ranges import PositiveRange

CARD = Card(
    name="pcl_sr",
    title="A Practical Contrastive Learning Framework for Single-Image Super-Resolution",
    summary=(
        "A way to train any super-resolution network further: its output is drawn towards the target and "
        "sharpened forms of it, and away from blurred ones, as a small discriminator of wavelet details sees "
        "them, which is trained beside it. The paper claims better pictures from EDSR, RCAN, HAN and NLSN "
        "retrained so, without any cost when they run. In the published code no gradient of the contrast "
        "reaches the network; here it does, as the paper means."
    ),
    when="When a trained network's pictures are too smooth: it trains on from there.",
    venue="IEEE TNNLS 2023",
    task=Task.SUPER_RESOLUTION,
    arxiv="2111.13924",
    code="https://github.com/Aitical/PCL-SISR",
    use=(
        "relume train cfsr-x4 --data photos/ --start cfsr-x4 --set objective=pcl_sr "
        "--set optimiser.learning_rate=5e-5",
    ),
)

Kind = Literal["info-nce", "lmcl", "cosine", "l2", "l1", "ratio"]
"""How `contrast` compares; its docstring has the equations."""

Features = Sequence[Tensor]
"""What an embedding gives for pictures: a tensor `B F h w` for each layer."""

_TINY = 3e-7


def _rising(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise ValueError(f"a range goes from its smaller to its larger number, so [{value[1]}, {value[0]}]")
    return value


class SamplesConfig(Config):
    """How many samples a batch gets beside target and input, and how they are made; the scripts' defaults.

    Attributes:
        positives: sharpened targets.
        negatives: blurred targets.
        sharpness: factors of `sharpen`; those below 1 soften, as published.
        reach: pixels from the middle of a blur's kernel to its end, along each axis.
        sigma: width of the blur along each axis, pixels.
    """

    positives: NonNegativeInt = 3
    negatives: NonNegativeInt = 3
    sharpness: PositiveRange = (0.5, 3.0)
    reach: Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_rising)] = (1, 5)
    sigma: PositiveRange = (0.1, 2.0)


@dataclass(frozen=True)
class Samples:
    """What outputs are compared with, each `B C H W`.

    Attributes:
        positives: the target first.
        negatives: the input, as large as the target, first.
    """

    positives: tuple[Tensor, ...]
    negatives: tuple[Tensor, ...]


def draw_samples(
    config: SamplesConfig, low: Tensor, high: Tensor, *, place: int = 0, places: int = 1
) -> Samples:
    """Draw samples from PyTorch's random numbers of the CPU, whatever the device.

    Args:
        config: how many, and how.
        low: inputs, `B C h w`.
        high: targets, `B C H W`.
        place: which part of a larger batch these are, from 0; samples are those that the whole would get.
        places: how many parts of this size it has.
    """

    def between(bounds: tuple[float, float], count: int) -> Tensor:
        return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(count, dtype=torch.float64)

    negatives = [enlarged(low, high)]
    for _ in range(config.negatives):
        down, right = torch.randint(config.reach[0], config.reach[1] + 1, (2,)).tolist()
        sigma_down, sigma_right = between(config.sigma, 2).tolist()
        blurred = blur(high, sides=(2 * down + 1, 2 * right + 1), sigmas=(sigma_down, sigma_right))
        negatives.append(rounded(blurred))
    positives = [high]
    for _ in range(config.positives):
        factors = between(config.sharpness, places * len(high)).tensor_split(places)[place]
        positives.append(rounded(sharpen(high, factors)))
    return Samples(tuple(positives), tuple(negatives))


def sharpen(pictures: Tensor, factors: Tensor) -> Tensor:
    """Go from a slightly blurred picture to the picture (1), and beyond (more), as Kornia's `sharpness`.

    The blur weighs a pixel 5 to its neighbours' 1; pixels at the border stay as they are.

    Args:
        pictures: `B C H W`, 0..1.
        factors: one a picture, `B`.

    Returns:
        The same shape, clamped to 0..1.
    """
    soft = pictures.clone()
    if min(pictures.shape[-2:]) >= 3:
        inner = pictures[..., 1:-1, 1:-1]
        soft[..., 1:-1, 1:-1] = ((9 * F.avg_pool2d(pictures, 3, stride=1) + 4 * inner) / 13).clamp(0, 1)
    return (soft + factors.to(pictures)[:, None, None, None] * (pictures - soft)).clamp(0, 1)


def blur(pictures: Tensor, *, sides: tuple[int, int], sigmas: tuple[float, float]) -> Tensor:
    """Blur by a Gaussian along the axes, the border mirrored (its pixel not repeated), as Kornia's.

    Args:
        pictures: ... `H W`.
        sides: of the kernel, odd, down and to the right.
        sigmas: widths, pixels, down and to the right.
    """
    longest = max(sides)
    x = extended(pictures, longest // 2, "mirror")
    for dim, side, sigma in zip((-2, -1), sides, sigmas, strict=True):
        beside = (longest - side) // 2
        weights = [0.0] * beside + _gaussian(side, sigma).tolist() + [0.0] * beside
        length = x.shape[dim] - longest + 1
        filtered = torch.zeros_like(x.narrow(dim, 0, length))
        for tap, weight in enumerate(weights):
            filtered += weight * x.narrow(dim, tap, length)
        x = filtered
    return x


def _gaussian(side: int, sigma: float) -> Tensor:
    x = torch.arange(side, dtype=torch.float64) - side // 2
    line = torch.exp(-x.square() / (2 * sigma**2))
    return line / line.sum()


def rounded(pictures: Tensor) -> Tensor:
    """Round pictures of 0..1 to 8 bits, half to even."""
    return (255 * pictures).clamp(0, 255).round() / 255


def enlarged(low: Tensor, high: Tensor) -> Tensor:
    """Return `low` as large as `high`: bicubic, corner on corner, clamped to 0..1; as it is where it fits."""
    if low.shape[-2:] == high.shape[-2:]:
        return low
    return F.interpolate(low, high.shape[-2:], mode="bicubic", align_corners=True).clamp(0, 1)


def strangers(negatives: Sequence[Features], times: int) -> list[Features]:
    """Return the negatives of other pictures in the batch: the batch shuffled, so that a few stay their own.

    The authors shuffle for each layer anew, here all layers follow one order.

    Args:
        negatives: features of each negative.
        times: how often each is shuffled anew.
    """
    found: list[Features] = []
    for _ in range(times):
        for features in negatives:
            order = torch.randperm(len(features[0])).to(features[0].device)
            found.append([layer[order] for layer in features])
    return found


def contrast(
    kind: Kind,
    output: Features,
    positives: Sequence[Features],
    negatives: Sequence[Features],
    *,
    halved: bool = False,
) -> Tensor:
    """Return how much less the output is like positives than like negatives.

    With c the cosine over channels, meant over places, and d the mean absolute difference, p the positives
    and n the negatives, for each picture; Σ over layers, means over what is left:

        info-nce   mean over layers of mean_p -log(e^c_p / (e^c_p + Σ_n e^c_n))    the scripts' choice
        lmcl       mean over layers of mean_p -log(e^c_p / Σ_n e^c_n)              may be negative
        ratio      mean over layers of mean_p d_p / mean_n d_n                     the authors' "InfoNCE_L1"
        cosine     Σ mean_n c - Σ mean_p c
        l2         (1 - Σ mean_p c) / (1 - Σ mean_n c + 3e-7)
        l1         Σ mean_p d / (Σ mean_n d + 3e-7)

    Args:
        kind: which.
        output: features of the outputs.
        positives: features of each positive, one at least.
        negatives: features of each negative, one at least.
        halved: whether, in the last three, each layer counts half of that before.
    """
    measure = _difference if kind in ("l1", "ratio") else _cosine
    layers = range(len(output))
    near = [torch.stack([measure(output[k], some[k]) for some in positives], 1) for k in layers]  # B P
    far = [torch.stack([measure(output[k], some[k]) for some in negatives], 1) for k in layers]  # B N
    shares = [0.5**k if halved else 1.0 for k in layers]
    p = torch.stack([share * values.mean() for share, values in zip(shares, near, strict=True)]).sum()
    n = torch.stack([share * values.mean() for share, values in zip(shares, far, strict=True)]).sum()
    match kind:
        case "info-nce":
            each = [F.softplus(_total(far[k]) - near[k]) for k in layers]
        case "lmcl":
            each = [_total(far[k]) - near[k] for k in layers]
        case "ratio":
            each = [near[k] / far[k].mean(1, keepdim=True) for k in layers]
        case "cosine":
            return n - p
        case "l2":
            return (1 - p) / (1 - n + _TINY)
        case "l1":
            return p / (n + _TINY)
    return torch.stack([values.mean() for values in each]).mean()


def _total(similarities: Tensor) -> Tensor:
    return similarities.logsumexp(1, keepdim=True)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(1).mean((-2, -1))


def _difference(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean((1, 2, 3))


def dual_contrast(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss: each real logit stands out among all fake ones, and each fake below.

    With r and f the logits of all pictures and places (Yu et al., "Dual Contrastive Loss and Attention for
    GANs", ICCV 2021, arXiv:2103.16748):

        mean_r -log(e^r / (e^r + Σ e^f)) + mean_f -log(e^-f / (e^-f + Σ e^-r))

    Only differences count, so that a bias that all logits share gets no gradient. With sides changed it is
    what a network minimises to be taken for real.

    Args:
        real: logits, any shape.
        fake: logits, any shape.
    """
    real, fake = real.flatten(), fake.flatten()
    return F.softplus(fake.logsumexp(0) - real).mean() + F.softplus((-real).logsumexp(0) + fake).mean()
