"""Pixels and a contrast: near to sharp targets, far from blurred ones, in a discriminator's features.

The strategy PCL-SR (`train.strategies.pcl_sr` has its equations and where it departs from what is published):

    loss = distance + weight · contrast + adversarial · dual contrast of logits

The discriminator, whose features are compared, is trained beside the network (`base.Partnered`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator
from torch import Tensor, nn

from relume.core.config import Config
from relume.core.errors import naming
from relume.measures.losses.pixel import PixelLossConfig
from relume.nn.discriminators.pcl import LAYERS, PCLDiscriminatorConfig, from_official
from relume.nn.encoders.opening import no_models
from relume.nn.partners import begin
from relume.train.objectives.base import Share, drawn_alike, refuse_names
from relume.train.settings import OptimiserConfig
from relume.train.strategies.pcl_sr import (
    Features,
    Kind,
    Samples,
    SamplesConfig,
    contrast,
    draw_samples,
    dual_contrast,
    strangers,
)

Layer = Annotated[int, Field(ge=0, lt=LAYERS)]


class ContrastiveConfig(Config):
    """What is compared, and who looks; the defaults are those of the authors' script for RCAN.

    That script weighs the contrast 5 beside a mean difference of pictures of 0..255, which is 5 / 255 here.
    Their script for NLSN takes 3 beside pictures of 0..1, with `kind` "cosine" and `judged` off. Neither says
    much: in their code no weight matters, see the strategy.

    Attributes:
        distance: of pixels.
        weight: factor on the contrast.
        kind: how features are compared.
        layers: whose features, 0 to 7.
        halved: whether, for "cosine", "l2" and "l1", each of these layers counts half of that before.
        strangers: how often each negative is given to other pictures of the batch as well.
        samples: positives and negatives.
        adversarial: factor on the loss of logits, by which outputs should be taken for targets.
        judged: whether the discriminator also learns from sharpened and blurred targets.
        discriminator: who looks.
        start: its authors' weights file, for it to start from; None starts at random.
        optimiser: the discriminator's; None: the settings of the network's.
    """

    name: Literal["contrastive", "pcl_sr"] = "contrastive"
    distance: PixelLossConfig = PixelLossConfig()
    weight: PositiveFloat = 0.02
    kind: Kind = "info-nce"
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)] = (4,)
    halved: bool = False
    strangers: NonNegativeInt = 0
    samples: SamplesConfig = SamplesConfig()
    adversarial: NonNegativeFloat = 0.0
    judged: bool = True
    discriminator: PCLDiscriminatorConfig = PCLDiscriminatorConfig()
    start: str | None = None
    optimiser: OptimiserConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> ContrastiveConfig:
        refuse_names([self.distance.shown], ("contrastive", "adversarial"))
        if self.halved and self.kind not in ("cosine", "l2", "l1"):
            raise ValueError(f"halved is for cosine, l2 and l1; {self.kind} takes the mean of its layers")
        return self

    def build(self) -> ContrastiveObjective:
        """Return the objective."""
        return ContrastiveObjective(self)


class ContrastiveObjective:
    """Distance and contrast on one output.

    Attributes:
        partner: the discriminator.
        optimiser: settings of its optimiser, None for those of the network's.
        share: what samples are drawn by (`base.Drawing`).
    """

    def __init__(self, config: ContrastiveConfig) -> None:
        self.config = config
        self.distance = config.distance.build(no_models)
        judge = config.discriminator
        with naming("objective.start"):
            self.discriminator = begin(judge.build(), judge, config.start, from_official)
        self.partner: nn.Module = self.discriminator
        self.optimiser = config.optimiser
        self.share: Share | None = None
        self._output: Tensor | None = None
        self._samples: Samples | None = None

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network on `batch["input"]` and compare with samples drawn for `batch["target"]`.

        Returns:
            "loss", the weighted sum; the distance by its name, "contrastive", and "adversarial" if wanted.

        Raises:
            ConfigError: the discriminator cannot take patches of this size or of these channels.
        """
        config = self.config
        output = network(batch["input"]).float()
        target = batch["target"].float()
        place, places = (self.share.place, self.share.places) if self.share else (0, 1)
        with drawn_alike(self.share):
            samples = draw_samples(config.samples, batch["input"].float(), target, place=place, places=places)
        self._output, self._samples = output.detach(), samples
        # The output's features keep their gradient: this is how the contrast reaches the network.
        fake, own = self._embed(output)
        with torch.no_grad():
            real, first = self._embed(target)
            positives = [first, *(self._embed(some)[1] for some in samples.positives[1:])]
            negatives = [self._embed(some)[1] for some in samples.negatives]
        with drawn_alike(self.share):
            negatives += strangers(negatives, config.strangers)
        with torch.autocast(output.device.type, enabled=False):
            losses = {
                config.distance.shown: self.distance(output, target),
                "contrastive": contrast(config.kind, own, positives, negatives, halved=config.halved),
            }
            loss = config.distance.weight * losses[config.distance.shown]
            loss = loss + config.weight * losses["contrastive"]
            if config.adversarial:
                losses["adversarial"] = dual_contrast(fake, real)
                loss = loss + config.adversarial * losses["adversarial"]
        return {"loss": loss, **losses}

    def _embed(self, pictures: Tensor) -> tuple[Tensor, Features]:
        """Return logits and the features of the layers asked for, in float32."""
        logits, features = self.discriminator.embed(pictures)
        return logits.float(), [features[layer].float() for layer in self.config.layers]

    def partner_losses(self, partner: nn.Module) -> dict[str, Tensor]:
        """Return "loss", the discriminator's, and the mean logits of what is "real" and "fake" to it."""
        assert self._output is not None, "judge first"
        assert self._samples is not None
        fake, real = [partner(self._output)], [partner(self._samples.positives[0])]
        if self.config.judged:
            # As published, without the input, whose size is another.
            real += [partner(some) for some in self._samples.positives[1:]]
            fake += [partner(some) for some in self._samples.negatives[1:]]
        targets, outputs = torch.cat(real).float(), torch.cat(fake).float()
        with torch.autocast(targets.device.type, enabled=False):
            loss = dual_contrast(targets, outputs)
        return {"loss": loss, "real": targets.mean(), "fake": outputs.mean()}


CONFIG = ContrastiveConfig
