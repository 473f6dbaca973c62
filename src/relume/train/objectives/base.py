"""What the training loop knows: an objective turns a batch and a network into losses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from relume.train.settings import OptimiserConfig
from relume.train.state import undisturbed_random

LOGGED = (
    "step", "validation", "notice", "loss", "gradient", "learning_rate", "loss_scale", "seconds_per_step",
    "data_share", "partner_loss", "partner_gradient", "real", "fake", "penalty", "right",
)  # fmt: skip
"""What a line of the log has besides an objective's losses: the loop's own figures and partners'."""


def refuse_names(shown: Iterable[str], others: Collection[str] = ()) -> None:
    """Refuse losses under one name, or under one that the log has for something else.

    Args:
        shown: the names of losses that may be chosen.
        others: those that the objective gives to what else it logs.

    Raises:
        ValueError: which name it is, for a validator to say.
    """
    taken = set(others)
    for name in shown:
        if name in LOGGED:
            raise ValueError(f"the log has another figure called {name!r}; give the loss another label")
        if name in taken:
            raise ValueError(f"two losses are called {name!r}; give one a label of its own")
        taken.add(name)


def bring(losses: Iterable[object], device: torch.device) -> None:
    """Bring those of several losses that hold a network to a device, in place."""
    for loss in losses:
        if isinstance(loss, nn.Module):
            loss.to(device)


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


@dataclass(frozen=True)
class Share:
    """Which part of a step's whole batch a call is given: processes and `accumulate` cut it, in order.

    Attributes:
        seed: of what the step draws; the same for all parts, and another one for each step.
        place: which part this is, from 0.
        places: how many there are, of one size.
    """

    seed: int
    place: int = 0
    places: int = 1


@runtime_checkable
class Drawing(Protocol):
    """An objective that draws random numbers.

    So that parts and processes give what one batch gives, all of them draw the same, inside `drawn_alike`:
    what is for single samples they draw for the whole batch, and take what is theirs.

    Attributes:
        share: set before each call of a training; None, as at first, draws from the random numbers as they
            come.
    """

    share: Share | None


@contextmanager
def drawn_alike(share: Share | None) -> Iterator[None]:
    """Have PyTorch's random numbers follow from the share's seed; afterwards they go on as if untouched."""
    if share is None:
        yield
        return
    with undisturbed_random():
        torch.manual_seed(share.seed)
        yield


@runtime_checkable
class Recording(Protocol):
    """An objective that takes means over the whole batch into buffers of the network.

    After a step, and only if the step reached the weights, the loop gives it back what its calls noted.
    """

    def noted(self) -> Sequence[Tensor]:
        """Return what the last call has for the record, as means over its batch, on the network's device."""
        ...

    def remember(self, means: Sequence[Tensor]) -> None:
        """Take in the same as means over the whole batch, all its parts and all processes."""
        ...


@runtime_checkable
class Classifying(Protocol):
    """An objective that asks which of the degradation's kinds happened to each input (a batch's "kind")."""

    def expect(self, kinds: int) -> None:
        """Hear, before the first batch, how many kinds there are.

        Raises:
            ConfigError: more than it tells apart.
        """
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
