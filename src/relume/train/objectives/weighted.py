"""A weighted sum of losses on one output, with an adversary and a teacher where they are wanted.

    loss = Σ w_k · loss_k(output, target) + w_a · adversarial(output) + w_t · teacher(output, input)

The network runs once a batch; each loss is logged by its name, unweighted. Losses are computed in float32
whatever the network's precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from relume.core.choices import ChosenFrom
from relume.core.config import Config
from relume.core.errors import naming
from relume.measures.losses.base import PACKAGE, Loss, LossConfig
from relume.measures.losses.pixel import PixelLossConfig
from relume.nn.encoders.opening import LoadNetwork, no_models
from relume.train.objectives.adversarial import AdversarialConfig, Adversary, Judged
from relume.train.objectives.base import Share, bring, drawn_alike, refuse_names
from relume.train.objectives.distillation import DistillationConfig, Lesson


class WeightedConfig(Config):
    """Which losses, each with its weight and its own settings.

    Attributes:
        parts: losses of output and target, from `measures.losses`.
        adversarial: a discriminator trained beside the network; None: none.
        distillation: a teacher; None: none.
    """

    name: Literal["weighted"] = "weighted"
    parts: tuple[Annotated[LossConfig, ChosenFrom(PACKAGE, "loss")], ...] = (PixelLossConfig(),)
    adversarial: AdversarialConfig | None = None
    distillation: DistillationConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> WeightedConfig:
        if not self.parts and self.adversarial is None and self.distillation is None:
            raise ValueError("an objective without a loss teaches nothing; name some under parts")
        refuse_names((part.shown for part in self.parts), ("adversarial", "teacher", "teacher_features"))
        return self

    def build(self) -> WeightedObjective:
        """Return the objective; encoders and teachers can be files only.

        Raises:
            RelumeError: one of them cannot be used.
        """
        return self.build_with(no_models)

    def build_with(self, load: LoadNetwork) -> WeightedObjective:
        """Return the objective.

        Args:
            load: gives models by a variant's name or a weights file.

        Raises:
            RelumeError: an encoder or teacher cannot be used.
        """
        parts = {}
        for index, part in enumerate(self.parts):
            with naming(f"objective.parts.{index}"):
                parts[part.shown] = (part.weight, part.build(load))
        lesson = Lesson(self.distillation, load) if self.distillation else None
        if self.adversarial:
            return AdversarialObjective(parts, lesson, Adversary(self.adversarial))
        return WeightedObjective(parts, lesson)


class WeightedObjective:
    """The sum, without an adversary.

    Args:
        parts: weight and loss, by the name that the log has.
        lesson: a teacher.

    Attributes:
        share: what losses that draw are drawn by (`base.Drawing`).
    """

    def __init__(self, parts: Mapping[str, tuple[float, Loss]], lesson: Lesson | None = None) -> None:
        self.parts = dict(parts)
        self.lesson = lesson
        self.share: Share | None = None

    def to(self, device: torch.device) -> WeightedObjective:
        """Bring encoders and the teacher to the device, in place."""
        bring((loss for _, loss in self.parts.values()), device)
        if self.lesson:
            self.lesson.teacher.to(device)
        return self

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network on `batch["input"]` and compare with `batch["target"]`.

        Returns:
            "loss", the weighted sum, and each loss by its name.

        Raises:
            ConfigError: a loss cannot be had on patches of this size or of these channels.
        """
        heard: dict[str, Tensor] = {}
        with self.lesson.listening(network) if self.lesson else nullcontext(heard) as heard:
            output = network(batch["input"]).float()
        target = batch["target"].float()
        values, total = self._further(output, target)
        with torch.autocast(output.device.type, enabled=False), drawn_alike(self.share):
            for name, (weight, loss) in self.parts.items():
                values[name] = loss(output, target)
                total = total + weight * values[name]
        if self.lesson:
            config = self.lesson.config
            taught = self.lesson.losses(batch["input"], output, heard)
            total = total + config.weight * taught["teacher"]
            if "teacher_features" in taught:
                total = total + config.features_weight * taught["teacher_features"]
            values |= taught
        return {"loss": total, **values}

    def _further(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:  # noqa: ARG002
        """Return losses beside those of the parts, and their weighted sum."""
        return {}, output.new_zeros(())


class AdversarialObjective(Judged, WeightedObjective):
    """The sum with an adversary."""

    def __init__(
        self, parts: Mapping[str, tuple[float, Loss]], lesson: Lesson | None, adversary: Adversary
    ) -> None:
        super().__init__(parts, lesson)
        self.judged_by(adversary)


CONFIG = WeightedConfig
