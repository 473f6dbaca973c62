"""Enlarging by sub-pixels (Shi et al., CVPR 2016, arXiv:1609.05158), and in steps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.nn.pieces import PIXELS, by_rows


class SubPixels(nn.Module):
    """Reconstruction of many networks: to few channels, pixel shuffles by 2 or 3, to the picture.

    `B N H W` to `B C sH sW`.

    Args:
        width: N.
        features: channels in between.
        channels: C.
        scale: s: 3 or a power of two.
    """

    def __init__(self, width: int, *, features: int, channels: int, scale: int) -> None:
        super().__init__()
        self.factors = (3,) if scale == 3 else (2,) * (scale.bit_length() - 1)
        self.narrow = nn.Conv2d(width, features, 3, padding=1)
        self.steps = nn.ModuleList(
            nn.Conv2d(features, factor**2 * features, 3, padding=1) for factor in self.factors
        )
        self.last = nn.Conv2d(features, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.narrow(x))
        halo = reach_through_steps(1, factors=self.factors, each=1)
        scale = math.prod(self.factors)
        return by_rows(self._enlarged, x, halo=halo, scale=scale, pixels=PIXELS // scale)

    def _enlarged(self, x: Tensor) -> Tensor:
        for step, factor in zip(self.steps, self.factors, strict=True):
            x = F.pixel_shuffle(step(x), factor)
        output: Tensor = self.last(x)
        return output


def official_subpixels(state: Mapping[str, Tensor], place: str) -> tuple[dict[str, str], dict[str, int]]:
    """Read `SubPixels` off a checkpoint of BasicSR's networks, which share their names.

    Args:
        state: the authors' checkpoint.
        place: our name of the reconstruction.

    Returns:
        The authors' names of its layers with ours, and what the settings `scale` and `features` are.
    """
    steps = sorted(
        key.removesuffix(".weight") for key in state if re.fullmatch(r"upsample\.\d+\.weight", key)
    )
    names = {name: f"{place}.steps.{index}" for index, name in enumerate(steps)}
    names |= {"conv_before_upsample.0": f"{place}.narrow", "conv_last": f"{place}.last"}
    features = state["conv_before_upsample.0.weight"].shape[0]
    by_three = bool(steps) and state[f"{steps[0]}.weight"].shape[0] == 9 * features
    return names, {"scale": 3 if by_three else 2 ** len(steps), "features": features}


def step_factors(scale: int) -> tuple[int, ...]:
    """Return by how much a picture is enlarged in each step: doublings, or at once by 3.

    Raises:
        ValueError: the scale is neither a power of 2 nor 3.
    """
    if scale == 3:
        return (3,)
    if scale < 1 or scale & (scale - 1):
        raise ValueError(f"what enlarges in steps does so by a power of 2 or by 3, not by {scale}")
    return (2,) * (scale.bit_length() - 1)


def reach_through_steps(after: int, *, factors: tuple[int, ...], each: int) -> int:
    """Return how many pixels, from its own, an output looks away at low resolution.

    Args:
        after: pixels of the output that layers behind the last step look away.
        factors: of the steps.
        each: pixels that a step's own layer looks away; of what comes in where sub-pixels follow it.
    """
    reached = after
    for factor in reversed(factors):
        reached = -(-reached // factor) + each
    return reached


@torch.no_grad()
def respread_subpixels(source: nn.Conv2d, target: nn.Conv2d, *, old: int, new: int) -> bool:
    """Fill the convolution before a pixel shuffle from one made for another scale.

    Each new sub-pixel takes the weights of the old one that lies at its centre,
    so the target starts as the source followed by nearest-neighbour enlarging.

    Args:
        source: convolution to `C·old²` channels.
        target: convolution to `C·new²` channels, otherwise alike.
        old: scale of the source.
        new: scale of the target.

    Returns:
        Whether the two are alike; where they are not, nothing is changed.
    """
    alike = source.weight.shape[1:] == target.weight.shape[1:]
    alike = alike and (source.bias is None) == (target.bias is None)
    if not alike or source.out_channels * new**2 != target.out_channels * old**2:
        return False
    nearest = [(2 * index + 1) * old // (2 * new) for index in range(new)]

    def respread(values: Tensor) -> Tensor:
        grid = values.unflatten(0, (-1, old, old))  # C old old …
        return grid[:, nearest][:, :, nearest].flatten(0, 2)  # C·new² …

    target.weight.copy_(respread(source.weight))
    if source.bias is not None and target.bias is not None:
        target.bias.copy_(respread(source.bias))
    return True
