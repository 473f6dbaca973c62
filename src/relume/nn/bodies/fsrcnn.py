"""FSRCNN's trunk: all work on few channels at low resolution.

Dong, Loy, Tang, ECCV 2016, arXiv:1608.00367, figure 2 without its deconvolution: extract features
with 5×5, shrink to few channels with 1×1, map with m convolutions 3×3, expand with 1×1.
Shapes: B batch, C picture channels, N width, H W size.

As in PCSR's code, from which the known checkpoints come, and other than in the paper, the m mapping
convolutions have one PReLU after the last of them, and each PReLU has one slope for all channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from relume.core.config import Config
from relume.nn.bodies.base import Body


class FSRCNNBodyConfig(Config):
    """Settings of a trunk; the defaults are the paper's widths and depth.

    Attributes:
        name: tells the bodies apart.
        channels: C.
        width: N ("d").
        shrunk: channels while mapping ("s").
        depth: mapping convolutions ("m").
    """

    name: Literal["fsrcnn"] = "fsrcnn"
    channels: PositiveInt = 3
    width: PositiveInt = 56
    shrunk: PositiveInt = 12
    depth: PositiveInt = 4

    def build(self) -> FSRCNNBody:
        """Return the trunk with random weights."""
        return FSRCNNBody(self)


class FSRCNNBody(Body):
    """Extract, shrink, map, expand."""

    def __init__(self, config: FSRCNNBodyConfig) -> None:
        super().__init__()
        width, shrunk = config.width, config.shrunk
        self.channels, self.width = config.channels, width
        self.reach = 2 + config.depth
        self.extract = nn.Sequential(nn.Conv2d(config.channels, width, 5, padding=2), nn.PReLU())
        self.shrink = nn.Sequential(nn.Conv2d(width, shrunk, 1), nn.PReLU())
        mapping = (nn.Conv2d(shrunk, shrunk, 3, padding=1) for _ in range(config.depth))
        self.mapping = nn.Sequential(*mapping, nn.PReLU())
        self.expand = nn.Sequential(nn.Conv2d(shrunk, width, 1), nn.PReLU())
        convolutions = sum(
            2 * layer.weight.numel() for layer in self.modules() if isinstance(layer, nn.Conv2d)
        )
        self.operations = convolutions + 2 * (width + shrunk)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.mapping(self.shrink(self.extract(x))))


def from_official(state: Mapping[str, Tensor]) -> tuple[FSRCNNBodyConfig, dict[str, Tensor]] | None:
    """Recognise the trunk's part of an authors' checkpoint; other keys are left out.

    Returns:
        Our config and state, or None where the keys are not FSRCNN's.
    """
    if "head_conv.0.weight" not in state or "body_conv.0.0.weight" not in state:
        return None
    width, channels = state["head_conv.0.weight"].shape[:2]
    depth = sum(bool(re.fullmatch(r"body_conv\.\d+\.bias", key)) for key in state)
    config = FSRCNNBodyConfig(
        channels=channels, width=width, shrunk=state["body_conv.0.0.weight"].shape[0], depth=depth
    )
    # The authors number the whole trunk through: 0 shrinks, 1 … m map, then a PReLU, then what expands.
    renames = (
        (r"^head_conv\.", "extract."),
        (r"^body_conv\.0\.", "shrink."),
        (rf"^body_conv\.{depth + 2}\.", "expand."),
        (r"^body_conv\.(\d+)\.", lambda at: f"mapping.{int(at[1]) - 1}."),
    )
    ours = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        if name != key:
            ours[name] = value
    return config, ours
