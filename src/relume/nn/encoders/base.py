"""Encoders: picture in, features by name out. They judge; they are never trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from relume.core.errors import ConfigError, UnknownNameError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_layers(module: nn.Module, layers: Iterable[str]) -> None:
    """Refuse names that no layer inside the module has.

    Raises:
        UnknownNameError: naming the first; the nearest is proposed.
    """
    known = [name for name, _ in module.named_modules() if name]
    for layer in layers:
        if layer not in known:
            raise UnknownNameError("layer", layer, known)


@contextmanager
def tapped(module: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Listen to layers inside a module while it runs; of one that runs several times, the last output.

    Args:
        module: any module.
        layers: names as `named_modules` has them.

    Yields:
        Features `B N H W` by layer, filled as the module runs.

    Raises:
        UnknownNameError: there is no such layer.
        ConfigError: as the module runs, a layer gives something else.
    """
    layers = tuple(layers)
    check_layers(module, layers)
    found: dict[str, Tensor] = {}

    def keep(name: str, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ConfigError(f"layer {name!r} gives no features B N H W; choose another")
        # A copy: what comes next may work in place.
        found[name] = output.clone()

    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(
                module.get_submodule(name).register_forward_hook(
                    lambda _layer, _input, output, name=name: keep(name, output)
                )
            )
        yield found


class Encoder(nn.Module):
    """Base of encoders: frozen, in evaluation mode, and pictures of one channel where it wants three.

    Args:
        module: what computes the features; its parameters get no gradient from now on.
        imagenet: whether the module wants pictures less ImageNet's mean, over its deviation.
        channels: how many the module takes, where that is known.
    """

    def __init__(self, module: nn.Module, *, imagenet: bool = False, channels: int | None = None) -> None:
        super().__init__()
        self.module = module
        self.channels = channels
        # Not nn.Module.requires_grad_, which scripted modules refuse.
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else ((0.0,), (1.0,))
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map `B C H W`, 0..1, to features by name, each `B N H' W'`.

        Raises:
            ConfigError: the encoder cannot take pictures of these channels.
        """
        if self.channels == 3 and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.channels not in (None, x.shape[1]):
            raise ConfigError(
                f"the encoder takes pictures of {self.channels} channels, these have {x.shape[1]}; "
                "choose another encoder"
            )
        return self.features((x - self.mean) / self.std)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Map prepared pictures to features by name."""
        raise NotImplementedError


class TappedEncoder(Encoder):
    """What layers inside any module give out, by the layers' names.

    Args:
        module: any module that takes `B C H W`.
        layers: names as `named_modules` has them ("stages.0"); of a layer that runs several times, the last
            output is taken.
        imagenet: see `Encoder`.
        channels: see `Encoder`.

    Raises:
        ConfigError: no layer is named.
        UnknownNameError: the module has no layer of that name.
    """

    def __init__(
        self, module: nn.Module, layers: Iterable[str], *, imagenet: bool = False, channels: int | None = None
    ) -> None:
        super().__init__(module.eval(), imagenet=imagenet, channels=channels)
        self.layers = tuple(layers)
        if not self.layers:
            raise ConfigError(
                "an encoder of this kind has no layers that stand for it; name some under layers, of "
                f"{', '.join(name for name, _ in module.named_children())} or what is in them"
            )
        check_layers(module, self.layers)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        with tapped(self.module, self.layers) as found:
            self.module(x)
        return {name: found[name] for name in self.layers}


class CompiledEncoder(Encoder):
    """A TorchScript or exported module: its outputs are its features, as nothing inside can be reached.

    A single output is called "output", those of a tuple "0", "1" …, those of a dictionary by their keys.

    Args:
        module: the loaded module.
        name: the file, for messages.
        layers: which outputs to give; none: all.
        imagenet: see `Encoder`.
    """

    def __init__(
        self, module: nn.Module, name: str, layers: Iterable[str] = (), *, imagenet: bool = False
    ) -> None:
        super().__init__(module, imagenet=imagenet)
        self.name = name
        self.layers = tuple(layers)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Raises: ConfigError: the file's module cannot take such pictures, or gives no features."""
        try:
            outputs = self.module(x)
        except (AssertionError, RuntimeError, ValueError) as error:
            first = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")
            raise ConfigError(
                f"the encoder {self.name} cannot take pictures of shape {tuple(x.shape)} ({first[:120]}); "
                "choose another data.patch or encoder"
            ) from error
        found = self._named(outputs)
        if not found or not all(isinstance(value, Tensor) and value.ndim == 4 for value in found.values()):
            raise ConfigError(f"the encoder {self.name} gives no features B N H W; choose another")
        for layer in self.layers:
            if layer not in found:
                raise UnknownNameError("output of the encoder", layer, found)
        return {layer: found[layer] for layer in self.layers or found}

    @staticmethod
    def _named(outputs: Any) -> dict[str, Any]:
        if isinstance(outputs, Mapping):
            return {str(name): value for name, value in outputs.items()}
        if isinstance(outputs, list | tuple):
            return {str(index): value for index, value in enumerate(outputs)}
        return {"output": outputs}
