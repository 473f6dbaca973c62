"""Networks with a slider: `strength` s, 0 to 1, goes from one look that they were trained for to the other.

Maggioni et al., CVPR 2023, arXiv:2304.00898 (`nn.tunable`). The surgery step "tunable" gives any network one:
its convolutions and linear layers become tunable, with parameters ω = (1 - s, s). For use, `folded` mixes
the kernels once, into the plain network of that strength: every engine runs it, as fast as the network was
before. Shapes: B batch, P parameters.

Departs from the paper: parameters beside convolutions and linear layers (scales, norms) stay common to all
strengths; models that are to tune them too are written with `nn.tunable.TunableParameter`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from relume.core.contract import Contract
from relume.core.errors import ConfigError, RelumeError
from relume.nn.depthwise import LargeDepthwiseConv2d
from relume.nn.network import Network, Reparameterisable
from relume.nn.pixelwise import PixelConv2d, PixelLinear
from relume.nn.tunable import (
    Dial,
    TunableConv2d,
    TunableConvTranspose2d,
    TunableLayer,
    TunableLinear,
    TunableModule,
)

_MIDDLE = 0.5
"""Strength of a network where none is set."""


class TunableNetwork(Network):
    """A network with tunable layers and one slider, `strength`; `make_tunable` makes any network one.

    Its parameters (1 - s, s) for strength s are put on the dial by each `forward`; a training puts others
    there by `tuned`. Strength None is the middle, 0.5.

    Attributes:
        dial: what its layers look at.
        tuning: ω, `P`, in place of the slider's; None: the slider's.
    """

    dial: Dial
    tuning: Tensor | None = None
    _kind: type[Network]
    _promise: Contract

    @property
    def contract(self) -> Contract:
        """The plain network's, with a strength."""
        return self._promise

    @property
    def count(self) -> int:
        """P, the number of parameters that its layers mix by."""
        return next(layer.count for layer in self.modules() if isinstance(layer, TunableLayer))

    def forward(self, x: Tensor) -> Tensor:
        # It stays there: a training that computes layers anew in its backward pass looks at it then.
        self.dial.parameters = self._turned().to(x.device)
        return super().forward(x)

    def fixed(self) -> Network:
        """Return a plain network that computes what this one does at its present strength; a copy."""
        parameters = self._turned().cpu()
        plain = copy.deepcopy(self).requires_grad_(False)
        for owner, name, layer in _found(plain, TunableLayer):
            device = next(layer.parameters()).device
            setattr(owner, name, layer.merged(parameters.to(device)))
        plain.steps = tuple(step for step in self.steps if step != "tunable")
        plain.__class__ = self._kind  # type: ignore[assignment]
        plain.strength = None
        return plain.train(self.training)

    def folded(self) -> nn.Module:
        """Return the plain network of the present strength, in the form that runs fastest."""
        return self.fixed().folded()

    def start_from(self, source: Network) -> list[str]:
        """Take over a trained network's weights: a tunable one's as they are, a plain one's in all kernels.

        Returns:
            Names of the own parameters that found nothing to take over; all of a layer's where its kernel
            found nothing.
        """
        if isinstance(source, TunableNetwork):
            return Network.start_from(self, source)
        plain = self.fixed()
        left = set(plain.start_from(source))
        with torch.no_grad():
            theirs = plain.state_dict()
            for name, own in self.named_parameters():
                if name in theirs and theirs[name].shape == own.shape:
                    own.copy_(theirs[name])
        for name, layer in self.named_modules():
            if isinstance(layer, TunableModule) and f"{name}.weight" not in left:
                layer.absorb(plain.get_submodule(name))
            elif isinstance(layer, TunableLayer):
                left |= {f"{name}.{own}" for own, _ in layer.named_parameters()}
        return [name for name, _ in self.named_parameters() if name in left]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Its class is made for it and has no name to be found by.
        return (_empty, (self._kind,), self.__dict__)

    def _turned(self) -> Tensor:
        if self.tuning is not None:
            return self.tuning[None]
        strength = _MIDDLE if self.strength is None else self.strength
        return torch.tensor([[1 - strength, strength]])


def make_tunable(network: nn.Module) -> None:
    """Give a network a slider, in place: all its convolutions and linear layers become tunable.

    Tunable layers that it has already take part; layers of several branches that are merged for use
    (`Reparameterisable`) stay common to all strengths. Until it is trained, the network computes what it did.
    A model may do this at the end of its `__init__`; others have it done by the surgery step "tunable".

    Raises:
        RelumeError: it is tunable already, or has no layer that can be made so.
        TypeError: not a `Network`.
    """
    if not isinstance(network, Network):
        raise TypeError(f"only networks are made tunable, not a {type(network).__name__}")
    if isinstance(network, TunableNetwork):
        raise RelumeError(f"this {type(network).__name__} is tunable already; leave the step tunable out")
    kind, promise, dial = type(network), replace(network.contract, strength=True), Dial()
    made: dict[nn.Module, TunableModule] = {}
    for owner, name, layer in _found(network, nn.Module):
        if layer not in made:
            tunable = _tunable(layer)
            if tunable is None:
                continue
            made[layer] = tunable
        setattr(owner, name, made[layer])
    own = [layer for layer in network.modules() if isinstance(layer, TunableLayer)]
    if not own:
        raise RelumeError(f"{kind.__name__} has no convolution and no linear layer to make tunable")
    for each in own:
        each.dial = dial
    # As in torch.nn.utils.parametrize: the class changes, so that the network stays what else it was.
    network.__class__ = _tunable_class(kind)  # type: ignore[arg-type]
    tuned_network = cast(TunableNetwork, network)
    tuned_network.dial, tuned_network._kind, tuned_network._promise = dial, kind, promise


@contextmanager
def tuned(network: nn.Module, parameters: Tensor) -> Iterator[None]:
    """Have a network run with given parameters, whatever its strength.

    Args:
        network: a tunable network, or one in a wrapper.
        parameters: ω, `P`.

    Raises:
        ConfigError: the network is not tunable, or by another number of parameters.
    """
    found = [module for module in network.modules() if isinstance(module, TunableNetwork)]
    if not found:
        raise ConfigError("this network has no slider to train; make it tunable (surgery step 'tunable')")
    if found[0].count != len(parameters):
        raise ConfigError(
            f"this network is tunable between {found[0].count} aims, not {len(parameters)}; name as many"
        )
    found[0].tuning = parameters
    try:
        yield
    finally:
        found[0].tuning = None


@cache
def _tunable_class(kind: type[Network]) -> type[TunableNetwork]:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (TunableNetwork, kind), names)


def _empty(kind: type[Network]) -> TunableNetwork:
    """Return a tunable network of a kind without its state, for a copy or pickle to fill in."""
    made = _tunable_class(kind)  # type: ignore[arg-type]
    return made.__new__(made)


def _tunable(layer: nn.Module) -> TunableModule | None:
    # Classes derived from these may compute something else.
    if type(layer) in (nn.Conv2d, LargeDepthwiseConv2d, PixelConv2d):
        return TunableConv2d(cast(nn.Conv2d, layer))
    if type(layer) is nn.ConvTranspose2d:
        return TunableConvTranspose2d(layer)
    return TunableLinear(cast(nn.Linear, layer)) if type(layer) in (nn.Linear, PixelLinear) else None


def _found(root: nn.Module, kind: type[Any]) -> list[tuple[nn.Module, str, Any]]:
    """Return the layers of a kind below a module, with who owns them under what name; none in branches."""
    found = []
    for name, child in root._modules.items():
        if child is None or isinstance(child, Reparameterisable):
            continue
        if isinstance(child, kind):
            found.append((root, name, child))
        if not isinstance(child, TunableLayer):
            found += _found(child, kind)
    return found
