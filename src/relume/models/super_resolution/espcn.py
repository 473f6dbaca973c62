"""ESPCN: three convolutions at low resolution, the last of which makes all the sub-pixels.

Shi, Caballero, Huszár, Totz, Aitken, Bishop, Rueckert, Wang, CVPR 2016, arXiv:1609.05158. `forward`
follows equations 1 to 4 and figure 1: a 5×5 and a 3×3 convolution with tanh, a 3×3 convolution to s² channels
for each of the picture's, and the periodic shuffle of equation 4.

Shapes: B batch, C picture channels, N width, H W low resolution, s scale.

Takes luma, as in the paper: of colour pictures it enlarges Y, and bicubic the rest (`nn.channels`).

Departs from the paper:
- With 3 channels it takes RGB, as checkpoints of the code that we read do where they are trained so.
- Lornatang's code clamps what comes out to 0..1; here that is left to what writes a picture.
- Its layers start as PyTorch's do, but the first with weights four times as large, and around the middle of
  the pictures' range. Else tanh begins as nearly a straight line, and a training stays for thousands of steps
  with what one linear filter can do: 6,000 steps of x3 gave 31.74 dB on Set5 that way, and 32.11 dB this way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed_state
from relume.nn.network import Network, reach
from relume.nn.upsample import respread_subpixels

CARD = Card(
    name="espcn",
    title=(
        "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural "
        "Network"
    ),
    summary=(
        "The network that brought enlarging by learnt sub-pixels, and one of the fastest there are: three "
        "convolutions at low resolution, made for video in real time. It enlarges the brightness of a "
        "picture, which holds its detail, and leaves the colours to bicubic."
    ),
    when="When speed is all: video, previews, weak machines.",
    venue="CVPR 2016",
    task=Task.SUPER_RESOLUTION,
    arxiv="1609.05158",
    code="https://github.com/yjn870/ESPCN-pytorch",
    claims=tuple(
        Claim(variant=variant, dataset=dataset, metric="psnr", value=value)
        for variant, dataset, value in (
            ("espcn-x3", "Set5", 33.13),
            ("espcn-x3", "Set14", 29.49),
            ("espcn-x4", "Set5", 30.90),
            ("espcn-x4", "Set14", 27.73),
        )
    ),
)


_GAIN = 4.0
"""On the first layer's weights as it starts; 8 is too much."""

_MIDDLE = 0.45
"""What pictures have in the mean, about."""


class ESPCNConfig(Config):
    """Settings of an ESPCN; the defaults are the paper's.

    Attributes:
        scale: s.
        channels: C; 1 takes luma, 3 RGB.
        width: N, channels of the first layer ("n₁"), even; the second has half as many.
    """

    scale: PositiveInt = 3
    channels: PositiveInt = 1
    width: Annotated[PositiveInt, Field(multiple_of=2)] = 64


class ESPCN(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: ESPCNConfig) -> None:
        super().__init__()
        self.config: ESPCNConfig = config
        self.extract = nn.Conv2d(config.channels, config.width, 5, padding=2)
        self.refine = nn.Conv2d(config.width, config.width // 2, 3, padding=1)
        self.expand = nn.Conv2d(config.width // 2, config.channels * config.scale**2, 3, padding=1)
        with torch.no_grad():
            assert self.extract.bias is not None
            self.extract.weight.mul_(_GAIN)
            self.extract.bias.sub_(_MIDDLE * self.extract.weight.sum((1, 2, 3)))

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large."""
        channels = self.config.channels
        return Contract(scale=self.config.scale, channels=channels, halo=reach(self), luma=channels == 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.extract(x))  # B N H W
        x = torch.tanh(self.refine(x))  # B N/2 H W
        return F.pixel_shuffle(self.expand(x), self.config.scale)  # B C sH sW

    def start_from(self, source: Network) -> list[str]:
        """Take over another ESPCN's layers and, where the scale differs, its nearest sub-pixels."""
        left = super().start_from(source)
        if isinstance(source, ESPCN) and "expand.weight" in left:
            scales = {"old": source.config.scale, "new": self.config.scale}
            if respread_subpixels(source.expand, self.expand, **scales):
                left = [name for name in left if not name.startswith("expand.")]
        return left


VARIANTS = {
    "espcn-x2": Variant(ESPCNConfig(scale=2), parameters=21_284),
    "espcn-x3": Variant(ESPCNConfig(scale=3), parameters=22_729),
    "espcn-x4": Variant(ESPCNConfig(scale=4), parameters=24_752),
}

NETWORK = ESPCN
"""What a variant's config builds."""

OFFICIAL_SETTINGS: dict[str, str] = {}
"""Authors' constructor arguments that their checkpoints do not show: none."""

_LAYOUTS = (
    # https://github.com/yjn870/ESPCN-pytorch and https://github.com/Lornatang/ESPCN-PyTorch
    {"first_part.0": "extract", "first_part.2": "refine", "last_part.0": "expand"},
    {"feature_maps.0": "extract", "feature_maps.2": "refine", "sub_pixel.0": "expand"},
)
"""Names in the checkpoints of either code, and ours."""


def tiny(config: ESPCNConfig) -> ESPCNConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"width": 8})


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise a checkpoint of either code that we read; the authors published none.

    Returns:
        Our config, state and steps, or None where the keys are not ESPCN's.
    """
    for layout in _LAYOUTS:
        if state.keys() == {f"{layer}.{part}" for layer in layout for part in ("weight", "bias")}:
            ours = renamed_state(state, (), layers=layout)
            width, channels = ours["extract.weight"].shape[:2]
            scale = math.isqrt(ours["expand.weight"].shape[0] // channels)
            return Official(ESPCNConfig(scale=scale, channels=channels, width=width), ours)
    return None
