"""The U-Net discriminator of Real-ESRGAN: one logit for each pixel, each layer's gain held to 1.

Wang, Xie, Dong, Shan, ICCVW 2021, arXiv:2107.10833, section 3.4, after Schönfeld et al., arXiv:2002.12655;
spectral norm by Miyato et al., arXiv:1802.05957. Three convolutions of stride 2 go down, three enlargements
by bilinear interpolation and convolutions go up, with what lies beside them on the way down added; leaky
ReLU of slope 0.2.

Shapes: B C H W in, sides of at least 8; B 1 H W out. Sides that 8 does not divide are allowed, as each
enlargement takes the size of what it is added to; the authors' code doubles and would fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from relume.nn.discriminators.base import Discriminator, DiscriminatorConfig

_SLOPE = 0.2
_LEAST = 8


class UNetDiscriminatorConfig(DiscriminatorConfig):
    """Settings of a U-Net discriminator; the defaults are Real-ESRGAN's.

    Attributes:
        skips: whether the way down is added to the way up.
    """

    name: Literal["unet"] = "unet"
    skips: bool = True

    def build(self) -> UNetDiscriminator:
        """Return the discriminator."""
        return UNetDiscriminator(self)


class UNetDiscriminator(Discriminator):
    """Down, up, and three more convolutions; names are the authors'."""

    def __init__(self, config: UNetDiscriminatorConfig) -> None:
        super().__init__()
        self.config: UNetDiscriminatorConfig = config
        width = config.width
        self.conv0 = nn.Conv2d(config.channels, width, 3, padding=1)
        self.conv1 = _down(width, 2 * width)
        self.conv2 = _down(2 * width, 4 * width)
        self.conv3 = _down(4 * width, 8 * width)
        self.conv4 = _flat(8 * width, 4 * width)
        self.conv5 = _flat(4 * width, 2 * width)
        self.conv6 = _flat(2 * width, width)
        self.conv7 = _flat(width, width)
        self.conv8 = _flat(width, width)
        self.conv9 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        self._refuse(x, least=_LEAST)
        whole = F.leaky_relu(self.conv0(x), _SLOPE)  # B N H W
        half = F.leaky_relu(self.conv1(whole), _SLOPE)  # B 2N H/2 W/2
        quarter = F.leaky_relu(self.conv2(half), _SLOPE)  # B 4N H/4 W/4
        x = F.leaky_relu(self.conv3(quarter), _SLOPE)  # B 8N H/8 W/8
        for convolution, beside in ((self.conv4, quarter), (self.conv5, half), (self.conv6, whole)):
            x = F.interpolate(x, beside.shape[-2:], mode="bilinear", align_corners=False)
            x = F.leaky_relu(convolution(x), _SLOPE)
            if self.config.skips:
                x = x + beside
        x = F.leaky_relu(self.conv7(x), _SLOPE)
        x = F.leaky_relu(self.conv8(x), _SLOPE)
        return self.conv9(x)  # B 1 H W


CONFIG = UNetDiscriminatorConfig


def from_official(state: Mapping[str, Tensor]) -> tuple[UNetDiscriminatorConfig, dict[str, Tensor]] | None:
    """Recognise the authors' `UNetDiscriminatorSN`; return config and state, or None.

    Whether it was trained with skips, no weight shows; the authors' were.
    """
    if "conv1.weight_orig" not in state or "conv9.weight" not in state:
        return None
    first = state["conv0.weight"]
    config = UNetDiscriminatorConfig(channels=first.shape[1], width=first.shape[0])
    names = {
        "weight_orig": "parametrizations.weight.original",
        "weight_u": "parametrizations.weight.0._u",
        "weight_v": "parametrizations.weight.0._v",
    }
    pattern = re.compile("|".join(names))
    return config, {pattern.sub(lambda found: names[found[0]], key): value for key, value in state.items()}


def _down(inputs: int, outputs: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))


def _flat(inputs: int, outputs: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
