"""The adversarial part of an objective: a discriminator judges outputs, and is trained beside the network.

Goodfellow et al., arXiv:1406.2661; for pictures SRGAN, ESRGAN and Real-ESRGAN (`measures.losses.adversarial`
has the equations, `nn.discriminators` the judges). The network's steps leave the discriminator as it is; its
own steps see outputs and targets without a way back to the network.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from relume.core.choices import ChosenFrom
from relume.core.config import Config
from relume.core.errors import naming
from relume.measures.losses.adversarial import Kind, discriminator_loss, gradient_penalty, network_loss
from relume.nn.discriminators.base import PACKAGE, DiscriminatorConfig
from relume.nn.discriminators.unet import UNetDiscriminatorConfig
from relume.train.settings import OptimiserConfig


class AdversarialConfig(Config):
    """Who judges, and by which loss; the defaults are Real-ESRGAN's (arXiv:2107.10833).

    Attributes:
        kind: "vanilla", "relativistic" (the average of the others is the measure), "hinge" or
            "least-squares".
        weight: factor on the network's part in the sum of losses; Real-ESRGAN 0.1, ESRGAN 0.005, SRGAN 0.001.
        discriminator: the judge.
        start: its authors' weights file, for it to start from; None starts at random.
        penalty: γ of the R1 penalty γ/2 · mean |∇ D(target)|², which steadies a discriminator without
            spectral norm (Mescheder et al., arXiv:1801.04406, who take 10); 0: none, and it costs nothing.
        optimiser: the discriminator's; None: the settings of the network's.
    """

    kind: Kind = "vanilla"
    weight: PositiveFloat = 0.1
    discriminator: Annotated[DiscriminatorConfig, ChosenFrom(PACKAGE, "discriminator")] = (
        UNetDiscriminatorConfig()
    )
    start: str | None = None
    penalty: NonNegativeFloat = 0.0
    optimiser: OptimiserConfig | None = None


class Adversary:
    """A discriminator and the losses of both sides."""

    def __init__(self, config: AdversarialConfig) -> None:
        self.config = config
        with naming("objective.adversarial.start"):
            self.discriminator: nn.Module = config.discriminator.begun(config.start)
        self._fake: Tensor | None = None
        self._real: Tensor | None = None

    def judge(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the network's loss and remember what was judged; the discriminator gets no gradient.

        Args:
            output: `B C H W`.
            target: the same shape.
        """
        self._fake, self._real = output.detach(), target.detach()
        trained = [value for value in self.discriminator.parameters() if value.requires_grad]
        for value in trained:
            value.requires_grad_(False)
        try:
            fake = self.discriminator(output).float()
            # Only "relativistic" asks how real pictures do.
            real = self.discriminator(self._real).float() if self.config.kind == "relativistic" else fake
        finally:
            for value in trained:
                value.requires_grad_(True)
        return network_loss(self.config.kind, fake, real)

    def own_losses(self, discriminator: nn.Module) -> dict[str, Tensor]:
        """Return the discriminator's losses on what was judged last.

        Args:
            discriminator: the discriminator, or what wraps it.

        Returns:
            "loss"; "real" and "fake", the mean logits; "penalty" where there is one.
        """
        assert self._fake is not None, "judge first"
        assert self._real is not None
        real, fake = discriminator(self._real).float(), discriminator(self._fake).float()
        loss = discriminator_loss(self.config.kind, fake, real)
        losses = {"real": real.mean(), "fake": fake.mean()}
        if self.config.penalty:
            with torch.autocast(self._real.device.type, enabled=False):
                losses["penalty"] = gradient_penalty(discriminator, self._real)
            loss = loss + self.config.penalty / 2 * losses["penalty"]
        return {"loss": loss, **losses}


class Judged:
    """What an objective has more with an adversary, which the loop trains beside it (`base.Partnered`).

    It comes before the objective's own class, whose `_further` it fills in.

    Attributes:
        partner: the discriminator.
        optimiser: settings of its optimiser, None for those of the network's.
    """

    def judged_by(self, adversary: Adversary) -> None:
        """Take the adversary; before the first call."""
        self.adversary = adversary
        self.partner = adversary.discriminator
        self.optimiser = adversary.config.optimiser

    def partner_losses(self, partner: nn.Module) -> dict[str, Tensor]:
        """Return the discriminator's losses on the last output and target: "loss", "real", "fake" …"""
        return self.adversary.own_losses(partner)

    def _further(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        value = self.adversary.judge(output, target)
        return {"adversarial": value}, self.adversary.config.weight * value
