"""Surgery that is recorded in a checkpoint and replayed before its weights load.

A step changes the layers of a built model. A model lists the steps that were
done to it (`Network.steps`); a checkpoint carries the list, so that loading
builds the model from its config, replays the steps, and finds the same keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn

from relume.core.errors import UnknownNameError
from relume.nn.network import Network, Reparameterisable
from relume.nn.slider import make_tunable

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


def reparameterise(module: nn.Module) -> None:
    """Replace, in place, every layer of several branches by the single layer equal to it."""
    for name, child in module.named_children():
        if isinstance(child, Reparameterisable):
            setattr(module, name, child.merged())
        else:
            reparameterise(child)


STEPS: dict[str, Callable[[nn.Module], None]] = {"reparameterise": reparameterise, "tunable": make_tunable}


def apply_steps(model: AnyNetwork, steps: Iterable[str]) -> AnyNetwork:
    """Do the named steps to the model, in place, in order, leaving out those already done; return the model.

    Raises:
        UnknownNameError: a step that does not exist.
    """
    for step in steps:
        if step not in STEPS:
            raise UnknownNameError("surgery step", step, STEPS)
        if step not in model.steps:
            STEPS[step](model)
            model.steps = (*model.steps, step)
    return model
