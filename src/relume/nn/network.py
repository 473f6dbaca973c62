"""The base of every model of this project, and of layers that have a training form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relume.core.config import Config
from relume.core.contract import Contract


class Network(nn.Module):
    """A model that maps pictures to pictures: tensors `B C H W` to `B C sH sW`.

    Attributes:
        config: the settings that it was built from.
        steps: names of the surgery done since, in order (see `nn.surgery`).
        effort: how much a routed model may spend, read anew by each `forward`: 0 takes the cheap way
            everywhere, 1 the dear one, and between them the bar for the dear way sinks as effort rises
            (`nn.routing`); None is the published decision. May be set where `contract.effort` says so;
            others have no choice to make.
        strength: where a tunable model's slider stands, 0 to 1, read anew by each `forward` and `folded`
            (`nn.slider`); None is the model's own. May be set where `contract.strength` says so.
    """

    config: Config
    steps: tuple[str, ...] = ()
    effort: float | None = None
    strength: float | None = None

    @property
    def contract(self) -> Contract:
        """What the outside may ask of the model."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map `B C H W` to `B C sH sW`, in the contract's value range."""
        raise NotImplementedError

    def folded(self) -> nn.Module:
        """Return the same function in the form that runs fastest, for use alone; or itself, where none is."""
        return self

    def start_from(self, source: Network) -> list[str]:
        """Take over a trained model's weights where names and shapes agree.

        A layer that is in several branches here and merged there takes over what the merged one computes.

        Returns:
            Names of the own parameters that found nothing to take over.
        """
        twins = dict(source.named_modules())
        absorbed = tuple(
            f"{name}."
            for name, layer in self.named_modules()
            if isinstance(layer, Reparameterisable) and name in twins and layer.absorb(twins[name])
        )
        theirs = source.state_dict()
        left = []
        with torch.no_grad():
            for name, own in self.named_parameters():
                other = theirs.get(name)
                if name.startswith(absorbed):
                    continue
                if other is not None and other.shape == own.shape:
                    own.copy_(other)
                else:
                    left.append(name)
        return left


class Reparameterisable(nn.Module):
    """A layer of several linear branches in training that is one layer in use."""

    def merged(self) -> nn.Module:
        """Return the single layer that computes exactly what the branches compute together."""
        raise NotImplementedError

    def absorb(self, layer: nn.Module) -> bool:
        """Set the branches so that together they compute what a merged layer computes.

        Returns:
            Whether `layer` is a merged layer of the same size; where it is not, nothing is changed.
        """
        raise NotImplementedError


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers the module's parameters hold (buffers are not counted)."""
    return sum(parameter.numel() for parameter in module.parameters())


def reach(module: nn.Module) -> int:
    """Return an upper bound of how far, in pixels, an output looks into the input.

    The sum of the half-widths of all convolutions: exact for a chain of
    stride-1 convolutions, whatever skips go around them, and an upper bound
    where some lie side by side.
    """
    return sum(
        max((size // 2) * dilation for size, dilation in zip(layer.kernel_size, layer.dilation, strict=True))
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
    )
