"""Of the pictures that a network gives, the nearest to the target is taught.

The strategy multi-output (`train.strategies.multi_output` has its equations); the network's part is
`nn.heads`:

    loss = sum over the network's stages of the mean over the batch of min_k distance(picture k, target)

With one picture it is the usual loss of that distance. Losses are computed in float32 whatever the network's
precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor, nn

from relume.core.config import Config
from relume.core.errors import ConfigError
from relume.nn.heads import Heads
from relume.train.strategies.multi_output import Distance, distances, nearest


class MultiOutputConfig(Config):
    """Which distance.

    Attributes:
        name: tells it from other objectives.
        distance: "psnr" (minus the PSNR in dB; the authors' for NAFNet and HINet) or "l1" (for Restormer).
    """

    name: Literal["multi-output", "multi_output"] = "multi-output"
    distance: Distance = "psnr"

    def build(self) -> MultiOutputObjective:
        """Return the objective."""
        return MultiOutputObjective(self)


class MultiOutputObjective:
    """The published objective, for any network with `nn.heads`."""

    def __init__(self, config: MultiOutputConfig) -> None:
        self.config = config
        self._noted: list[tuple[Heads, Tensor]] = []

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network on `batch["input"]` and compare all its pictures with `batch["target"]`.

        Returns:
            "loss", and "single", the mean distance of the picture that is shown.

        Raises:
            ConfigError: the network has no heads.
        """
        heads = [module for module in network.modules() if isinstance(module, Heads)]
        if not heads:
            raise ConfigError(
                "objective multi-output needs a network that gives pictures by heads, such as a NAFNet; "
                "choose another objective or another variant"
            )
        heard: list[tuple[Heads, Tensor]] = []

        def hear(module: nn.Module, _inputs: object, output: Tensor) -> None:
            assert isinstance(module, Heads)
            heard.append((module, output))

        with ExitStack() as hooks:
            # A hook, as several processes hold the network in a wrapper that must be called itself.
            for module in heads:
                hooks.enter_context(module.register_forward_hook(hear))
            shown = network(batch["input"]).float()
        target = batch["target"].float()
        losses = []
        self._noted = []
        with torch.autocast(target.device.type, enabled=False):
            for module, pictures in heard:
                each = distances(self.config.distance, pictures.float(), target)
                losses.append(nearest(each))
                self._noted.append((module, each.detach().mean(0)))
            single = distances(self.config.distance, shown[:, None], target)
        return {"loss": torch.stack(losses).sum(), "single": single.detach().mean()}

    def noted(self) -> Sequence[Tensor]:
        """Return the mean losses of the last batch's pictures, `K`, for each of the network's stages."""
        return [losses for _, losses in self._noted]

    def remember(self, means: Sequence[Tensor]) -> None:
        """Take such losses, one after another, into the records of the heads that they come from."""
        for (module, _), losses in zip(self._noted, means, strict=True):
            module.remember(losses)


CONFIG = MultiOutputConfig
