"""One training for all positions of a slider: the numbers that mix a network's kernels weigh its losses.

Maggioni et al., CVPR 2023, arXiv:2304.00898, section 3; the network's part is `nn.slider`. With aims
L_1 … L_P and parameters ω drawn anew for each batch:

    loss = Σ_i ω_i · L_i(output at ω, target),    ω uniform among those with ω_i ≥ 0 and Σ ω_i = 1.

For two aims ω is (1 - s, s) with s uniform in 0..1: strength 0 goes after the first aim alone, 1 after the
second. Each aim is itself a weighted sum of losses, as fidelity has a place at both ends of most sliders. An
adversary, where there is one, has its place in the last aim, and so the more to say the higher the strength.

Losses are computed in float32 whatever the network's precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from relume.core.choices import ChosenFrom
from relume.core.config import Config
from relume.core.errors import naming
from relume.measures.losses.base import PACKAGE, Loss, LossConfig
from relume.nn.encoders.opening import LoadNetwork, no_models
from relume.nn.slider import tuned
from relume.train.objectives.adversarial import AdversarialConfig, Adversary, Judged
from relume.train.objectives.base import Share, bring, drawn_alike

Aim = tuple[Annotated[LossConfig, ChosenFrom(PACKAGE, "loss")], ...]
"""Losses, each with its weight in the aim's sum."""


class MultiLossConfig(Config):
    """What the ends of the slider go after.

    Attributes:
        name: tells it from other objectives.
        aims: losses of output and target, from `measures.losses`, one list for each of the network's
            parameters: those of strength 0 first, then those of strength 1.
        adversarial: a discriminator trained beside the network, for the last aim; None: none.
    """

    name: Literal["multi-loss", "tunable"] = "multi-loss"
    aims: tuple[Aim, ...]
    adversarial: AdversarialConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> MultiLossConfig:
        if len(self.aims) < 2 or not all(self.aims):
            raise ValueError("a slider lies between two aims or more; name losses for each of them")
        return self

    def build(self) -> MultiLossObjective:
        """Return the objective; encoders can be files only.

        Raises:
            RelumeError: one of them cannot be used.
        """
        return self.build_with(no_models)

    def build_with(self, load: LoadNetwork) -> MultiLossObjective:
        """Return the objective.

        Args:
            load: gives models by a variant's name or a weights file.

        Raises:
            RelumeError: an encoder cannot be used.
        """
        aims: list[list[tuple[float, Loss]]] = []
        for number, aim in enumerate(self.aims):
            aims.append([])
            for index, part in enumerate(aim):
                with naming(f"objective.aims.{number}.{index}"):
                    aims[-1].append((part.weight, part.build(load)))
        if self.adversarial:
            return JudgedMultiLossObjective(aims, Adversary(self.adversarial))
        return MultiLossObjective(aims)


class MultiLossObjective:
    """The sum, for a tunable network.

    Args:
        aims: for each parameter, weights and losses.

    Attributes:
        share: what parameters, and losses that draw, are drawn by (`base.Drawing`).
    """

    def __init__(self, aims: list[list[tuple[float, Loss]]]) -> None:
        self.aims = aims
        self.share: Share | None = None

    def to(self, device: torch.device) -> MultiLossObjective:
        """Bring encoders to the device, in place."""
        bring((loss for aim in self.aims for _, loss in aim), device)
        return self

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the network on `batch["input"]` at drawn parameters and compare with `batch["target"]`.

        Returns:
            "loss", and each aim's own, unweighted: "aim_1", "aim_2" …

        Raises:
            ConfigError: the network is not tunable, or not between as many aims, or a loss cannot be had on
                patches of this size or of these channels.
        """
        with drawn_alike(self.share):
            parameters = draw(len(self.aims))
        with tuned(network, parameters):
            output = network(batch["input"]).float()
        target = batch["target"].float()
        total, values = output.new_zeros(()), {}
        with torch.autocast(output.device.type, enabled=False), drawn_alike(self.share):
            for i, (parameter, aim) in enumerate(zip(parameters.tolist(), self.aims, strict=True), 1):
                value = torch.stack([weight * loss(output, target) for weight, loss in aim]).sum()
                values[f"aim_{i}"] = value
                total = total + parameter * value
        further, more = self._further(output, target)
        return {"loss": total + parameters[-1].item() * more, **values, **further}

    def _further(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:  # noqa: ARG002
        """Return losses beside those of the last aim, and their weighted sum."""
        return {}, output.new_zeros(())


class JudgedMultiLossObjective(Judged, MultiLossObjective):
    """The sum with an adversary; the discriminator is shown outputs of every strength."""

    def __init__(self, aims: list[list[tuple[float, Loss]]], adversary: Adversary) -> None:
        super().__init__(aims)
        self.judged_by(adversary)


def draw(count: int) -> Tensor:
    """Draw parameters ω, `P`, uniformly among those that are not negative and have the sum 1.

    By PyTorch's own generator.
    """
    lengths = -torch.rand(count).clamp(min=torch.finfo(torch.float32).tiny).log()
    return lengths / lengths.sum()


CONFIG = MultiLossConfig
