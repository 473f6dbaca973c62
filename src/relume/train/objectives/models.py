"""Objectives that need other models: what runs them hands down how models are loaded.

Models lie in a room that training does not know; a recipe does.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from relume.nn.encoders.opening import LoadNetwork
from relume.train.objectives.base import Objective, ObjectiveConfig


@runtime_checkable
class NeedsModels(Protocol):
    """A config whose objective may hold other models, by their names."""

    def build_with(self, load: LoadNetwork) -> Objective:
        """Return the objective, on the CPU.

        Args:
            load: gives a model by a variant's name or a weights file.

        Raises:
            RelumeError: a model or file cannot be used.
        """
        ...


def build_objective(config: ObjectiveConfig, load: LoadNetwork) -> Objective:
    """Return the objective of a config, whether it needs other models or not.

    Raises:
        RelumeError: a model or file that it needs cannot be used.
    """
    return config.build_with(load) if isinstance(config, NeedsModels) else config.build()
