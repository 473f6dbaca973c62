"""Multi-output: a network gives several pictures, and only the nearest to the target is taught.

Liu, Qiao, Dou, "Multi-Outputs Is All You Need For Deblur", 2022, arXiv:2208.13029; the network's part is
`nn.heads`, the objective `objectives.multi_output`. What was lost in a blurred picture can have been several
things; a network of one output, taught by a distance, gives their mean. With pictures y_1 … y_K and target t:

    psnr   10 / ln 10 · mean over the batch of ln(min_k mean (y_k - t)² + 10⁻⁸)     NAFNet, HINet
    l1     mean over the batch of min_k mean |y_k - t|                              Restormer

So each picture becomes good at the cases that fall to it. The paper judges by the best overall (for each test
picture the nearest of the K, which needs the target) and by the best single (the one picture that is best
on a whole validation set): the latter is what a user can have, and what the network shows. `judge` finds
both.

Shapes: B batch, K pictures, C channels, H W. Ranges: pictures 0..1.

Departs from the paper: training itself keeps a record of each picture's mean loss, so that a network shows a
good one before it is judged by a validation set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from relume.core.card import Card, Task
from relume.core.errors import ConfigError, RelumeError
from relume.nn.heads import ManyHeaded

CARD = Card(
    name="multi_output",
    title="Multi-Outputs Is All You Need For Deblur",
    summary=(
        "A way to train NAFNet, HINet, Restormer and others: the last convolution gives several pictures, "
        "means of two of them are pictures too, and only the one nearest to the target is taught. The paper "
        "claims 0.04 to 0.08 dB for the best single picture and 0.11 to 0.18 dB where the best is chosen for "
        "each test picture."
    ),
    when="When several answers may be given and the best is chosen, by eye or by a measure.",
    venue="arXiv 2022",
    task=Task.RESTORATION,
    arxiv="2208.13029",
    code="https://github.com/Liu-SD/multi-output-deblur",
    use=(
        "relume train mhnafnet-small --data photos/",
        "relume train nafnet-small --data photos/ --set network.heads.count=4 --set objective=multi_output",
    ),
)

Distance = Literal["psnr", "l1"]

_TINY = 1e-8
_DECIBELS = 10 / math.log(10)


def distances(kind: Distance, pictures: Tensor, target: Tensor) -> Tensor:
    """Return how far each picture is from its target, `B K`; for "psnr" minus its PSNR in dB.

    Args:
        kind: which.
        pictures: `B K C H W`.
        target: `B C H W`.
    """
    difference = pictures - target[:, None]
    if kind == "l1":
        return difference.abs().mean((2, 3, 4))
    return _DECIBELS * torch.log(difference.square().mean((2, 3, 4)) + _TINY)


def nearest(each: Tensor) -> Tensor:
    """Return the mean over the batch of the nearest picture's distance: `B K` to a number."""
    return each.min(1).values.mean()


@dataclass(frozen=True)
class Judgement:
    """What a validation set says of a network's pictures.

    Attributes:
        psnr: mean PSNR of each of the K pictures, dB.
        overall: mean over the set of the best picture's PSNR, which differs from one to the next.
    """

    psnr: tuple[float, ...]
    overall: float

    @property
    def best(self) -> int:
        """Which picture is best on the whole set."""
        return max(range(len(self.psnr)), key=self.psnr.__getitem__)

    @property
    def single(self) -> float:
        """That picture's mean PSNR, dB."""
        return self.psnr[self.best]


@torch.no_grad()
def judge(network: torch.nn.Module, pairs: Iterable[tuple[Tensor, Tensor]]) -> Judgement:
    """Measure all pictures of a network on a set, and have it show the best single one from now on.

    It does unless its config says which picture is shown (`HeadsConfig.shown`).

    Args:
        network: one with `nn.heads`, on whatever device.
        pairs: inputs and targets, `C H W` each, 0..1; outputs are clamped and rounded to 8 bits, as they are.

    Raises:
        ConfigError: the network is of another kind.
        RelumeError: there are no pairs.
    """
    if not isinstance(network, ManyHeaded):
        raise ConfigError(f"a {type(network).__name__} gives one picture; there are none to choose from")
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    rows = []
    for low, high in pairs:
        pictures = (network.every(low[None].to(device)).double().clamp(0, 1) * 255).round() / 255
        rows.append(-distances("psnr", pictures, high[None].to(pictures))[0])
    network.train(was_training)
    if not rows:
        raise RelumeError("there are no pairs to judge by; give a folder with some")
    each = torch.stack(rows)  # pictures of the set × K
    network.heads.settle(-each.mean(0))
    return Judgement(tuple(each.mean(0).tolist()), float(each.max(1).values.mean()))
