"""Choosing between a cheap and a dear way for each pixel (Jeong et al., ECCV 2024, arXiv:2407.21448).

A classifier gives each pixel two logits, light and heavy. Shapes: P pixels, B batch.

The published decision takes the class with the larger probability / costᵏ, so
k > 0 favours the light way and k < 0 the heavy one. With two classes whose
probabilities sum to 1 that is a threshold on the heavy probability p:

    heavy  ⟺  p > t,    t = 1 / (1 + (c_light / c_heavy)ᵏ),    t = 1/2 for k = 0.

`effort` e, 0 to 1, is the same decision with t = 1 - e: 0 makes nothing heavy, 1
everything, 0.5 is k = 0, and in between k = ln(e / (1 - e)) / ln(c_light / c_heavy).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ROUNDS = 19
"""Refinements of the published clustering after its first assignment."""

_TOLERANCE = 1e-4


class Router(nn.Module):
    """Turns logits into the probability that a pixel is heavy.

    It has no weights: it is a module so that an objective can listen to what a
    network of any architecture decides (`train.objectives.routing`).
    """

    def forward(self, logits: Tensor) -> Tensor:
        """Map `… 2` (light, heavy) to `…`, 0..1."""
        return torch.softmax(logits, -1)[..., 1]


def threshold_of_costs(light: float, heavy: float, k: float) -> float:
    """Return t of the published decision: costs are compared as their k-th power."""
    return 1 / (1 + (light / heavy) ** k)


def exceeds(probability: Tensor, effort: float) -> Tensor:
    """Tell which pixels are heavy at an effort; all of them at 1, even where the probability rounds to 0."""
    return probability > 1 - effort if effort < 1 else torch.ones_like(probability, dtype=torch.bool)


def cluster(probability: Tensor) -> Tensor:
    """Split each picture's pixels into two clusters and call the higher one heavy ("adaptive decision").

    2-means on the probabilities stretched to 0..1, begun with centres at 0 and
    at the mean, as the authors' clustering does. Where all pixels are alike,
    none is heavy.

    Args:
        probability: `B P`.

    Returns:
        Whether a pixel is heavy, `B P`.
    """
    return torch.stack([_cluster_one(values) for values in probability.double()])


def _cluster_one(values: Tensor) -> Tensor:
    values = values - values.min()
    values = values / values.max().clamp(min=torch.finfo(values.dtype).tiny)
    low, high = values.new_zeros(()), values.mean()
    heavy = torch.zeros_like(values, dtype=torch.bool)
    for _ in range(_ROUNDS):
        heavy = values > (low + high) / 2
        if not heavy.any():
            break
        new_low, new_high = values[~heavy].mean(), values[heavy].mean()
        moved = (new_low - low).square() + (new_high - high).square()
        low, high = new_low, new_high
        if moved <= _TOLERANCE:
            break
    return heavy
