"""CARN's trunk: blocks whose outputs are all kept and fused again and again.

Ahn, Kang, Sohn, ECCV 2018, arXiv:1803.08664, figures 2 to 4. The network is a
cascade of blocks and each block a cascade of residual units, so there is one
class for both. Shapes: B batch, C picture channels, N width, H W size.

Two lines of checkpoints exist. The authors' own (nmhkahn/CARN-pytorch) fuse by
a 1×1 convolution and a ReLU; those of later comparisons, PCSR among them, put a
batch norm between the two and give the convolution no bias.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.config import Config
from relume.nn.bodies.base import Body

_STEPS = 3
"""Units in a block, and blocks in the network."""


class CARNBodyConfig(Config):
    """Settings of a trunk; the defaults are CARN-M's.

    Attributes:
        name: tells the bodies apart.
        channels: C.
        width: N ("nf").
        groups: of the residual units' 3×3 convolutions ("group").
        residual: "plain" has two convolutions, "efficient" (CARN-M) adds a 1×1 convolution.
        shared: whether a block uses one residual unit three times, as CARN-M does.
        batch_norm: whether a fusion has a batch norm.
    """

    name: Literal["carn"] = "carn"
    channels: PositiveInt = 3
    width: PositiveInt = 64
    groups: PositiveInt = 4
    residual: Literal["plain", "efficient"] = "efficient"
    shared: bool = True
    batch_norm: bool = False

    @model_validator(mode="after")
    def _fits(self) -> CARNBodyConfig:
        if self.width % self.groups:
            raise ValueError(f"width {self.width} must be a multiple of groups {self.groups}")
        return self

    def build(self) -> CARNBody:
        """Return the trunk with random weights."""
        return CARNBody(self)


class ResidualUnit(nn.Module):
    """Two 3×3 convolutions, in CARN-M grouped and followed by a 1×1 one, with a skip and a ReLU."""

    def __init__(self, config: CARNBodyConfig) -> None:
        super().__init__()
        width, groups = config.width, config.groups
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=groups),
        )
        if config.residual == "efficient":
            self.layers.extend([nn.ReLU(), nn.Conv2d(width, width, 1)])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + x)


class Cascade(nn.Module):
    """Three steps: each output is put beside all earlier ones and fused to N channels (figure 3).

    Args:
        units: the three steps, or one that is used three times.
        config: of the trunk.
    """

    def __init__(self, units: Iterable[nn.Module], config: CARNBodyConfig) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.fusions = nn.ModuleList(self._fusion(step + 2, config) for step in range(_STEPS))

    @staticmethod
    def _fusion(inputs: int, config: CARNBodyConfig) -> nn.Sequential:
        fusion = nn.Sequential(nn.Conv2d(config.width * inputs, config.width, 1, bias=not config.batch_norm))
        if config.batch_norm:
            fusion.append(nn.BatchNorm2d(config.width))
        return fusion.append(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        for step, fuse in enumerate(self.fusions):
            unit = self.units[step % len(self.units)]
            kept = torch.cat([kept, unit(x)], 1)  # B (step + 2)N H W
            x = fuse(kept)
        return x  # B N H W


class CARNBody(Body):
    """A 3×3 convolution and the cascade of cascading blocks."""

    def __init__(self, config: CARNBodyConfig) -> None:
        super().__init__()
        self.channels, self.width = config.channels, config.width
        self.reach = 1 + _STEPS * _STEPS * 2
        self.entry = nn.Conv2d(config.channels, config.width, 3, padding=1)
        units = 1 if config.shared else _STEPS
        self.cascade = Cascade(
            (Cascade((ResidualUnit(config) for _ in range(units)), config) for _ in range(_STEPS)), config
        )
        self.operations = sum(
            _operations(layer) * (_STEPS if config.shared and ".layers." in name else 1)
            for name, layer in self.named_modules()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.cascade(self.entry(x))


def _operations(layer: nn.Module) -> int:
    if isinstance(layer, nn.Conv2d):
        return 2 * layer.weight.numel()
    return 2 * layer.num_features if isinstance(layer, nn.BatchNorm2d) else 0


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^b(\d)\.b(\d)\.body\.", lambda at: f"cascade.units.{int(at[1]) - 1}.units.{int(at[2]) - 1}.layers."),
    (r"^b(\d)\.c(\d)\.(?:body\.)?", lambda at: f"cascade.units.{int(at[1]) - 1}.fusions.{int(at[2]) - 1}."),
    (r"^c(\d)\.(?:body\.)?", lambda at: f"cascade.fusions.{int(at[1]) - 1}."),
)


def from_official(state: Mapping[str, Tensor]) -> tuple[CARNBodyConfig, dict[str, Tensor]] | None:
    """Recognise the trunk's part of an authors' checkpoint; other keys are left out.

    Returns:
        Our config and state, or None where the keys are not CARN's.
    """
    if "b1.b1.body.0.weight" not in state or not {"b1.c1.0.weight", "b1.c1.body.0.weight"} & set(state):
        return None
    width, channels = state["entry.weight"].shape[:2]
    config = CARNBodyConfig(
        channels=channels,
        width=width,
        groups=width // state["b1.b1.body.0.weight"].shape[1],
        residual="efficient" if "b1.b1.body.4.weight" in state else "plain",
        shared="b1.b2.body.0.weight" not in state,
        batch_norm="b1.c1.1.weight" in state,
    )
    ours = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        if name.startswith(("entry.", "cascade.")):
            ours[name] = value
    return config, ours
