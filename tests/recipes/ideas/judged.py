"""An objective with a partner, as another file of the objectives' package would be."""

from typing import Literal

import torch
from torch import nn

from relume.core.config import Config
from relume.train.settings import OptimiserConfig


class JudgedConfig(Config):
    name: Literal["judged"] = "judged"
    weight: float = 0.01
    width: int = 4

    def build(self):
        return JudgedObjective(self)


class JudgedObjective(nn.Module):
    """A pixel distance, and a judge with batch norm and dropout that learns to tell outputs from targets."""

    def __init__(self, config):
        super().__init__()
        self.weight = config.weight
        self.partner = nn.Sequential(
            nn.Conv2d(3, config.width, 3), nn.BatchNorm2d(config.width), nn.Dropout(0.2),
            nn.Conv2d(config.width, 1, 3),
        )  # fmt: skip
        self.optimiser = OptimiserConfig(learning_rate=1e-3)

    def forward(self, network, batch):
        output = network(batch["input"])
        self.seen = output.detach(), batch["target"]
        pixel = (output - batch["target"]).abs().mean()
        return {"loss": pixel - self.weight * self.partner(output).mean(), "pixel": pixel}

    def partner_losses(self, partner):
        fake, real = (partner(pictures) for pictures in self.seen)
        return {"loss": torch.relu(1 + fake).mean() + torch.relu(1 - real).mean()}


CONFIG = JudgedConfig
