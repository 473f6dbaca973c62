"""Pre-training by telling what happened to pictures (`train.strategies.dcpt` has the idea and its source).

    loss = distance(network(target), target) + weight · focal loss of the input's kind

The classifier is trained beside the network (`base.Partnered`), by the focal loss alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from relume.core.config import Config
from relume.core.errors import ConfigError, naming
from relume.measures.losses.pixel import PixelLossConfig
from relume.nn.classifier import FeatureClassifierConfig
from relume.nn.encoders.base import tapped
from relume.nn.encoders.opening import no_models
from relume.nn.partners import begin
from relume.train.objectives.base import refuse_names
from relume.train.settings import OptimiserConfig
from relume.train.strategies.dcpt import classifier_from_official, focal_loss, right_share


class DCPTConfig(Config):
    """What is classified, and by which features.

    Attributes:
        layers: layers of the network, by name, from the largest features to the smallest, and the width of
            each: {"decoders.1": 32, "decoders.0": 64}.
        kinds: how many kinds of damage there are.
        blocks: bottleneck blocks in each stage of the classifier.
        picture: whether the classifier sees the picture as well.
        start: the authors' weights of such a classifier, for it to start from; None starts at random.
        distance: between a clean picture and what the network makes of it.
        weight: factor on the classification.
        focus: γ of the focal loss; 0 is cross entropy.
        optimiser: the classifier's; None: the settings of the network's.
    """

    name: Literal["dcpt"] = "dcpt"
    layers: Annotated[dict[str, PositiveInt], Field(min_length=1)]
    kinds: Annotated[int, Field(ge=2)] = 5
    blocks: PositiveInt = 2
    picture: bool = False
    start: str | None = None
    distance: PixelLossConfig = PixelLossConfig()
    weight: PositiveFloat = 1.0
    focus: NonNegativeFloat = 0.0
    optimiser: OptimiserConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> DCPTConfig:
        refuse_names([self.distance.shown], ("classification",))
        return self

    def build(self) -> DCPTObjective:
        """Return the objective."""
        return DCPTObjective(self)


class DCPTObjective:
    """Distance of clean pictures and classification of damaged ones.

    Attributes:
        partner: the classifier.
        optimiser: settings of its optimiser, None for those of the network's.
    """

    def __init__(self, config: DCPTConfig) -> None:
        self.config = config
        self.distance = config.distance.build(no_models)
        classifier = FeatureClassifierConfig(
            widths=tuple(config.layers.values()), classes=config.kinds, blocks=config.blocks,
            picture=config.picture,
        )  # fmt: skip
        with naming("objective.start"):
            self.classifier = begin(classifier.build(), classifier, config.start, classifier_from_official)
        self.partner: nn.Module = self.classifier
        self.optimiser = config.optimiser
        self._seen: tuple[list[Tensor], Tensor | None] | None = None
        self._kinds: Tensor | None = None

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network on "target" and "input", and ask the classifier for "kind".

        Returns:
            "loss", the weighted sum; the distance by its name, and "classification".

        Raises:
            ConfigError: nobody tells what happened to the inputs, there are more kinds than expected, the
                network enlarges, or its layers do not fit the classifier.
            UnknownNameError: the network has no such layer.
        """
        config = self.config
        clean, damaged = batch["target"], batch["input"]
        kinds = self._kinds_of(batch)
        if clean.shape != damaged.shape:
            raise ConfigError("objective dcpt gives clean pictures to the network, so it is for scale 1 only")
        inner = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        with tapped(inner, config.layers) as heard:
            output = network(torch.cat([clean, damaged]))[: len(clean)].float()
        features = [heard[layer][len(clean) :] for layer in config.layers]
        picture = damaged if config.picture else None
        self._seen, self._kinds = ([value.detach() for value in features], picture), kinds
        logits = self.classifier(features, picture).float()
        with torch.autocast(output.device.type, enabled=False):
            distance = self.distance(output, clean.float())
            classification = focal_loss(logits, kinds, focus=config.focus)
        loss = config.distance.weight * distance + config.weight * classification
        return {"loss": loss, config.distance.shown: distance, "classification": classification}

    def _kinds_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        if "kind" not in batch:
            raise ConfigError(
                "objective dcpt has to know what happened to each picture; use a degradation that tells, "
                "such as --set degradation=one-of"
            )
        kinds = batch["kind"]
        self.expect(int(kinds.max()) + 1)
        return kinds

    def expect(self, kinds: int) -> None:
        """Hear how many kinds there are at least (`base.Classifying`).

        Raises:
            ConfigError: more than `config.kinds`.
        """
        if kinds > self.config.kinds:
            raise ConfigError(
                f"objective.kinds names {self.config.kinds} kinds, but the degradation has {kinds} or more; "
                "name as many"
            )

    def partner_losses(self, partner: nn.Module) -> dict[str, Tensor]:
        """Return the classifier's "loss", and "right", the share of kinds that it recognised."""
        assert self._seen is not None, "classify first"
        assert self._kinds is not None
        logits = partner(*self._seen).float()
        with torch.autocast(logits.device.type, enabled=False):
            loss = focal_loss(logits, self._kinds, focus=self.config.focus)
        return {"loss": loss, "right": right_share(logits, self._kinds)}


CONFIG = DCPTConfig
