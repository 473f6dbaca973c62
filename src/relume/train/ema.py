"""A running mean of the weights, which measures better than the last ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a module's parameters: mean ← d·mean + (1 - d)·weights.

    The decay starts low and grows with the steps, min(d, (1 + t) / (10 + t)), so that
    the first random weights are soon forgotten.

    Args:
        module: whose parameters are followed.
        decay: d; 0 makes the mean equal to the weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.mean = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after step `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        means = list(self.mean.values())
        torch._foreach_lerp_(means, [value.detach() for value in module.parameters()], 1 - decay)

    def state(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the module's state dict with the mean in place of its parameters."""
        return {name: self.mean.get(name, value).detach() for name, value in module.state_dict().items()}
