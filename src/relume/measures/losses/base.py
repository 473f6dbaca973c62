"""What every loss is to a training: a name, a weight, and a function of output and target."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import PositiveFloat
from torch import Tensor

from relume.core.config import Config
from relume.nn.encoders.opening import LoadNetwork

PACKAGE = "relume.measures.losses"
"""Where losses lie, for `core.choices.ChosenFrom`."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Takes output and target, `B C H W` floats in 0..1, and gives a scalar; 0 is best."""


class LossConfig(Config):
    """Settings that all losses have; each file's config narrows `name` and adds its own.

    Attributes:
        name: which loss.
        weight: factor on it in a sum of losses.
        label: name in the log; None: its own.
    """

    name: str
    weight: PositiveFloat = 1.0
    label: str | None = None

    @property
    def shown(self) -> str:
        """The name that the log has."""
        return self.label or self.name

    def build(self, load: LoadNetwork) -> Loss:
        """Return the loss.

        Args:
            load: gives models by name, to a loss that compares features of one.

        Raises:
            RelumeError: a file or model that it needs cannot be used.
        """
        raise NotImplementedError


def same_shape(name: str, output: Tensor, target: Tensor) -> None:
    """Refuse tensors that cannot be compared.

    Raises:
        ValueError: the shapes differ, are empty, or are not `B C H W`.
    """
    if output.shape != target.shape or output.ndim != 4 or not output.numel():
        raise ValueError(
            f"{name} compares two pictures B C H W, not {tuple(output.shape)} with {tuple(target.shape)}"
        )
