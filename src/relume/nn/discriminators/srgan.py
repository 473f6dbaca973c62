"""SRGAN's discriminator: one logit a picture.

Ledig et al., CVPR 2017, arXiv:1609.04802, figure 4: eight 3×3 convolutions, every second of stride 2, widths
doubling from 64 to 512, batch norm in all but the first, leaky ReLU of slope 0.2; then two dense layers.

Two published forms, which differ in their end:
- dense (Lornatang/SRGAN-PyTorch, as the paper's figure): the features of a picture of `side` pixels, a
  multiple of 16 (96 in the paper), are flattened; only the first convolution has a bias, as batch norm
  takes away that of the others;
- pooled (leftthomas/SRGAN): the features are averaged over the picture, so that any size will do, and the
  dense layers are 1×1 convolutions; every convolution has a bias.

Shapes: B C H W in; B 1 out. Logits: leftthomas' code ends with a sigmoid, which is the loss's here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from relume.core.errors import ConfigError
from relume.nn.discriminators.base import Discriminator, DiscriminatorConfig

_SLOPE = 0.2
_HALVINGS = 4


class SRGANDiscriminatorConfig(DiscriminatorConfig):
    """Settings of SRGAN's discriminator; the defaults take pictures of any size.

    Attributes:
        side: of the pictures that the dense form takes; None is the pooled form.
        factors: widths of the four pairs of convolutions, over `width`.
        hidden: outputs of the first dense layer.
    """

    name: Literal["srgan"] = "srgan"
    side: Annotated[int, Field(ge=16, multiple_of=16)] | None = None
    factors: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 2, 4, 8)
    hidden: PositiveInt = 1024

    def build(self) -> SRGANDiscriminator:
        """Return the discriminator."""
        return SRGANDiscriminator(self)


class SRGANDiscriminator(Discriminator):
    """Convolutions and an end; the numbers of `features` and `classify` are Lornatang's."""

    def __init__(self, config: SRGANDiscriminatorConfig) -> None:
        super().__init__()
        self.config: SRGANDiscriminatorConfig = config
        pooled = config.side is None
        width = config.width * config.factors[0]
        layers: list[nn.Module] = [nn.Conv2d(config.channels, width, 3, padding=1), nn.LeakyReLU(_SLOPE)]
        for index in range(1, 2 * _HALVINGS):
            wider, stride = config.width * config.factors[index // 2], 1 + index % 2
            layers.append(nn.Conv2d(width, wider, 3, stride=stride, padding=1, bias=pooled))
            layers += [nn.BatchNorm2d(wider), nn.LeakyReLU(_SLOPE)]
            width = wider
        self.features = nn.Sequential(*layers)
        self.classify: nn.Module
        if config.side is None:
            self.classify = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, config.hidden, 1), nn.LeakyReLU(_SLOPE),
                nn.Conv2d(config.hidden, 1, 1), nn.Flatten(),
            )  # fmt: skip
        else:
            values = width * (config.side // 2**_HALVINGS) ** 2
            self.classify = nn.Sequential(
                nn.Flatten(),
                nn.Linear(values, config.hidden),
                nn.LeakyReLU(_SLOPE),
                nn.Linear(config.hidden, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Raises: ConfigError: the dense form was made for pictures of another size."""
        side = self.config.side
        self._refuse(x, least=side or 1)
        if side is not None and x.shape[-2:] != (side, side):
            raise ConfigError(
                f"the discriminator srgan is set to pictures of {side}×{side}, got "
                f"{x.shape[-1]}×{x.shape[-2]}; set its side to null for any size, or data.patch to fit"
            )
        return self.classify(self.features(x))  # B 1


CONFIG = SRGANDiscriminatorConfig

_POOLED = re.compile(r"net\.(\d+)\.(.+)")
_DENSE = re.compile(r"(features|classifier)\.(\d+)\.(.+)")


def from_official(state: Mapping[str, Tensor]) -> tuple[SRGANDiscriminatorConfig, dict[str, Tensor]] | None:
    """Recognise either published form by its keys and shapes; return config and state, or None.

    leftthomas' `net.24` and `net.26` and Lornatang's `classifier` are the two dense layers.
    """
    if "net.0.weight" in state and "net.26.weight" in state:
        ours = {key: _pooled_key(key) for key in state}
        side = None
        hidden = state["net.24.weight"].shape[0]
    elif "features.20.weight" in state and "classifier.2.weight" in state:
        ours = {key: _dense_key(key) for key in state}
        hidden, values = state["classifier.0.weight"].shape
        side = round((values / state["features.20.weight"].shape[0]) ** 0.5) * 2**_HALVINGS
    else:
        return None
    renamed = {ours[key]: value for key, value in state.items()}
    first = renamed["features.0.weight"]
    widths = [renamed[f"features.{number}.weight"].shape[0] for number in (2, 8, 14, 20)]
    config = SRGANDiscriminatorConfig(
        channels=first.shape[1], width=first.shape[0], side=side, hidden=hidden,
        factors=tuple(width // first.shape[0] for width in widths),
    )  # fmt: skip
    return config, renamed


def _pooled_key(key: str) -> str:
    found = _POOLED.fullmatch(key)
    if found is None:
        return key
    number = int(found[1])
    # 23 is the average, 24 and 26 are the dense layers.
    return f"features.{number}.{found[2]}" if number < 23 else f"classify.{number - 23}.{found[2]}"


def _dense_key(key: str) -> str:
    found = _DENSE.fullmatch(key)
    if found is None or found[1] == "features":
        return key
    return f"classify.{int(found[2]) + 1}.{found[3]}"
