"""Teaching a routed network which pixels deserve the dear way (Jeong et al., ECCV 2024, arXiv:2407.21448).

The network's training output is a mixture of both ways by the classifier's
probabilities, so the distance to the target (eq. 3 to 5) teaches the classifier
to call heavy what gains by it. Alone it would call nearly everything heavy;
the balance pulls the mean probability to a half:

    loss = distance + balance · |2 · mean p - 1| + light · distance of the light way alone.

The last term is ours: in the mixture, the light way hardly learns what is heavy,
yet somebody who chooses the least effort sees it everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import NonNegativeFloat
from torch import Tensor, nn

from relume.core.config import Config
from relume.core.errors import ConfigError
from relume.nn.network import Network
from relume.nn.routing import Router
from relume.train.objectives.pixel import PixelConfig, PixelObjective


class RoutingConfig(Config):
    """Which distance, and what is added to it.

    Attributes:
        name: tells it from other objectives.
        distance: of the mixture, and of the light way alone.
        balance: weight of the balance; the published 3 against a distance weighted 1000.
        light: weight of the light way alone.
    """

    name: Literal["routing"] = "routing"
    distance: PixelConfig = PixelConfig()
    balance: NonNegativeFloat = 0.003
    light: NonNegativeFloat = 0.0

    def build(self) -> RoutingObjective:
        """Return the objective."""
        return RoutingObjective(self)


class RoutingObjective:
    """The published objective of a routed network, for any network that decides by a `nn.routing.Router`."""

    def __init__(self, config: RoutingConfig) -> None:
        self.distance = PixelObjective(config.distance)
        self.balance, self.light = config.balance, config.light

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network on `batch["input"]`; "loss" sums "distance", "balance" and "light", weighted.

        Raises:
            ConfigError: the network has no router, or several.
        """
        routers = [module for module in network.modules() if isinstance(module, Router)]
        if len(routers) != 1:
            raise ConfigError(
                f"objective routing needs a network with one router, this one has {len(routers)}; "
                f"choose another objective or a routed variant"
            )
        heard: list[Tensor] = []
        with routers[0].register_forward_hook(lambda _module, _input, output: heard.append(output)):
            distance = self.distance(network, batch)["loss"]
        balance = (2 * heard[0].float().mean() - 1).abs()
        losses = {"loss": distance + self.balance * balance, "distance": distance, "balance": balance}
        if self.light:
            # Processes of one training hold the network in a wrapper; the effort is the network's own.
            routed = next(module for module in network.modules() if isinstance(module, Network))
            routed.effort = 0.0
            try:
                losses["light"] = self.distance(network, batch)["loss"]
            finally:
                routed.effort = None
            losses["loss"] = losses["loss"] + self.light * losses["light"]
        return losses


CONFIG = RoutingConfig
