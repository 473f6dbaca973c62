"""FSRCNN: a few thin convolutions at low resolution and one deconvolution, for when time is short.

Dong, Loy, Tang, ECCV 2016, arXiv:1608.00367. `forward` follows figure 2: the
trunk (`nn.bodies.fsrcnn`) and a 9×9 deconvolution of stride s. Shapes: B batch,
C picture channels, N width, H W low resolution, s scale.

Departs from the paper:
- RGB in and out, as users feed RGB, and x4 only: the known checkpoints are those
  of PCSR's comparison, whose deconvolution cuts 3 pixels at the top and left and
  2 at the bottom and right, which gives sH × sW for s = 4 alone.
- What `nn.bodies.fsrcnn` says of the trunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from relume.core.card import Card, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.nn.bodies import fsrcnn
from relume.nn.bodies.fsrcnn import FSRCNNBodyConfig
from relume.nn.network import Network

CARD = Card(
    name="fsrcnn",
    title="Accelerating the Super-Resolution Convolutional Neural Network",
    summary=(
        "One of the smallest networks that beat bicubic enlarging by far: it works at low resolution, on few "
        "channels, and enlarges in its last layer."
    ),
    when=(
        "When the network must be tiny and shall see colours, or as a trunk for PCSR. Of brightness alone, "
        "ESPCN and SESR make more."
    ),
    venue="ECCV 2016",
    task=Task.SUPER_RESOLUTION,
    arxiv="1608.00367",
    code="https://github.com/3587jjh/PCSR",
)


class FSRCNNConfig(Config):
    """Settings of an FSRCNN.

    Attributes:
        scale: s; 4, see the file's head.
        body: the trunk.
    """

    scale: Literal[4] = 4
    body: FSRCNNBodyConfig = FSRCNNBodyConfig()


class FSRCNN(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: FSRCNNConfig) -> None:
        super().__init__()
        self.config: FSRCNNConfig = config
        self.body = config.body.build()
        self.enlarge = nn.ConvTranspose2d(
            config.body.width, config.body.channels, 9, stride=config.scale, padding=3, output_padding=1
        )

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large."""
        # The deconvolution mixes each pixel with its neighbours.
        return Contract(scale=self.config.scale, channels=self.config.body.channels, halo=self.body.reach + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.enlarge(self.body(x))


VARIANTS = {"fsrcnn-x4": Variant(FSRCNNConfig(), parameters=24_515)}

NETWORK = FSRCNN
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"upscale": "scale"}
"""Authors' constructor arguments that their checkpoints do not show, and our names for them."""


def tiny(config: FSRCNNConfig) -> FSRCNNConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    body = config.body.model_copy(update={"width": 8, "shrunk": 4, "depth": 2})
    return config.model_copy(update={"body": body})


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint.

    Returns:
        Our config, state and steps, or None where the keys are not FSRCNN's.
    """
    found = fsrcnn.from_official(state)
    if found is None or "tail_conv.weight" not in state:
        return None
    body, ours = found
    ours = {f"body.{name}": value for name, value in ours.items()}
    ours |= {f"enlarge.{part}": state[f"tail_conv.{part}"] for part in ("weight", "bias")}
    return Official(FSRCNNConfig(body=body), ours)
