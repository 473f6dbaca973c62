"""What the training loop knows: an objective turns a batch and a network into losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from relume.train.settings import OptimiserConfig


class Objective(Protocol):
    """A callable that the loop minimises.

    Whatever it needs beside the network (an encoder that stays as it is) it holds itself; the loop brings
    it to its device where the objective is `Placed`.
    """

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return scalar losses by name; "loss" is the one that is minimised, the others are logged.

        Each is a mean over the batch, so that a batch in parts gives what it gives whole.
        """
        ...


class ObjectiveConfig(Protocol):
    """A config that builds an objective; a file of `train.objectives` defines one as `CONFIG`."""

    def build(self) -> Objective:
        """Return the objective, on the CPU."""
        ...


@runtime_checkable
class Placed(Protocol):
    """An objective that holds tensors or modules of its own; an `nn.Module` is one as it stands."""

    def to(self, device: torch.device) -> object:
        """Bring all that it holds to the device, in place."""
        ...


@runtime_checkable
class Partnered(Protocol):
    """An objective with a network trained beside, such as a discriminator, by an optimiser of its own.

    The loop steps both after each batch: the network by what `__call__` returns, during which the partner's
    parameters need no gradient (it is there to judge), then the partner by `partner_losses`. It saves and
    resumes the partner and its optimiser, and shares them among processes. It knows nothing else of it.

    Attributes:
        partner: the network beside.
        optimiser: the partner's optimiser; None takes the settings of the network's. Its rate follows the
            same schedule.
    """

    partner: nn.Module
    optimiser: OptimiserConfig | None

    def partner_losses(self, partner: nn.Module) -> dict[str, Tensor]:
        """Return the partner's losses on what the last `__call__` left, detached, as means over its batch.

        "loss" is minimised and logged as "partner_loss"; the others are logged under their names.

        Args:
            partner: the partner to call, as it is wrapped for several processes.
        """
        ...
