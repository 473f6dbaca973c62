"""The distilling part of an objective: outputs, and if wanted features, should be like a teacher's.

Hinton, Vinyals, Dean, arXiv:1503.02531, for pictures: with T the teacher and x the input,

    teacher           mean |output - T(x)|   (or mean (…)²)
    teacher_features  mean over pairs of layers of the distance of their attention maps
                      (Zagoruyko, Komodakis, arXiv:1612.03928; `measures.losses.distillation`)

The teacher is frozen, in evaluation mode, and runs once a batch beside the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.config import Config
from relume.core.errors import ConfigError, naming
from relume.measures.losses.distillation import attention_distance
from relume.nn.encoders.base import check_layers, tapped
from relume.nn.encoders.opening import LoadNetwork, open_compiled


class DistillationConfig(Config):
    """Who teaches, and what is learnt.

    Attributes:
        teacher: a variant's name, the weights of a model, or a TorchScript or `torch.export` file (which
            gives outputs only).
        weight: factor on the distance of outputs.
        distance: of outputs, "l1" or "mse".
        features: layers of the network and the teacher's that they should be like, by name; one size each.
        features_weight: factor on their mean distance.
    """

    teacher: str
    weight: PositiveFloat = 1.0
    distance: Literal["l1", "mse"] = "l1"
    features: dict[str, str] = Field(default_factory=dict)
    features_weight: PositiveFloat = 1.0


class Lesson:
    """A teacher and what it is asked.

    Args:
        config: the settings.
        load: gives models.

    Raises:
        RelumeError: the teacher cannot be loaded or has no such layers.
    """

    def __init__(self, config: DistillationConfig, load: LoadNetwork) -> None:
        self.config = config
        with naming("objective.distillation.teacher"):
            compiled = open_compiled(Path(config.teacher))
        if compiled is not None and config.features:
            raise ConfigError(
                f"objective.distillation.features: the layers of {config.teacher} cannot be reached, it is "
                f"compiled; leave out features or name a model's weights"
            )
        with naming("objective.distillation.teacher"):
            self.teacher = compiled or load(config.teacher).eval()
        for parameter in self.teacher.parameters():
            parameter.requires_grad_(False)
        with naming("objective.distillation.features"):
            check_layers(self.teacher, config.features.values())

    @contextmanager
    def listening(self, network: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Listen to the network while it runs."""
        if isinstance(network, nn.parallel.DistributedDataParallel):
            network = network.module
        with tapped(network, self.config.features) as heard:
            yield heard

    def losses(self, x: Tensor, output: Tensor, heard: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compare with the teacher.

        Args:
            x: the input, `B C H W`.
            output: the network's, in float32.
            heard: what `listening` gave.

        Returns:
            "teacher", and "teacher_features" where features are learnt.

        Raises:
            ConfigError: the teacher's pictures or features have another size.
        """
        with torch.no_grad(), tapped(self.teacher, self.config.features.values()) as taught:
            wanted = self.teacher(x).float()
        if wanted.shape != output.shape:
            raise ConfigError(
                f"objective.distillation.teacher: {self.config.teacher} gives pictures of shape "
                f"{tuple(wanted.shape)}, the network {tuple(output.shape)}; choose a teacher of the same "
                f"scale and channels"
            )
        distance = F.l1_loss if self.config.distance == "l1" else F.mse_loss
        losses = {"teacher": distance(output, wanted)}
        if self.config.features:
            distances = []
            for own, theirs in self.config.features.items():
                if heard[own][:, 0].shape != taught[theirs][:, 0].shape:
                    raise ConfigError(
                        f"objective.distillation.features: those of {own!r} are {tuple(heard[own].shape)}, "
                        f"the teacher's {theirs!r} {tuple(taught[theirs].shape)}; choose layers of one size"
                    )
                distances.append(attention_distance(heard[own].float(), taught[theirs].float()))
            losses["teacher_features"] = torch.stack(distances).mean()
        return losses
