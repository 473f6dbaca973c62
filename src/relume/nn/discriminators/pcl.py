"""PCL-SR's discriminator: judges a picture's details, and lends its features to compare pictures by.

Wu, Jiang, Liu, IEEE TNNLS 2023, arXiv:2111.13924, and the authors' code (https://github.com/Aitical/PCL-SISR,
`loss/discriminator.py`): one level of Haar's wavelet, its three bands of details; eight 3×3 convolutions
without bias, each with batch norm and leaky ReLU of slope 0.2, every second of stride 2, widths doubling from
64 to 512; then one of two published ends:
- patches: averaged to 4×4 places, one logit each;
- dense: for pictures of `side` pixels, flattened and two dense layers, one logit a picture.

Shapes: B C H W in; B 1 4 4 out, or B 1 of the dense end. The wavelet halves the sides, and features k (0..7)
have sides smaller by 2^ceil(k/2) again; each halving rounds up.
Features are those after the activation. The authors ask for those before it, but their activation works in
place, so that what they use is what came after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from relume.core.errors import ConfigError
from relume.nn.discriminators.base import Discriminator, DiscriminatorConfig
from relume.nn.wavelets import haar_details

LAYERS = 8

_SLOPE = 0.2
_HALVINGS = 4
_HIDDEN = 1024
_PLACES = 4
_BANDS = 3


class PCLDiscriminatorConfig(DiscriminatorConfig):
    """Settings of PCL-SR's discriminator; the defaults are those of the authors' scripts.

    Attributes:
        wavelet: whether it sees the wavelet's details; else the picture itself.
        side: of the pictures that the dense end takes, a multiple of 16, with the wavelet of 32; None is the
            end of patches.
    """

    name: Literal["pcl"] = "pcl"
    wavelet: bool = True
    side: Annotated[int, Field(ge=16, multiple_of=16)] | None = None

    @model_validator(mode="after")
    def _halves(self) -> PCLDiscriminatorConfig:
        if self.side is not None and self.side % self.shrinking:
            raise ValueError(f"with the wavelet, side is a multiple of {self.shrinking}, not {self.side}")
        return self

    @property
    def shrinking(self) -> int:
        """How many times smaller the last features are."""
        return 2 ** (_HALVINGS + self.wavelet)

    def build(self) -> PCLDiscriminator:
        """Return the discriminator."""
        return PCLDiscriminator(self)


class PCLDiscriminator(Discriminator):
    """Convolutions and an end; names and numbers are the authors'."""

    def __init__(self, config: PCLDiscriminatorConfig) -> None:
        super().__init__()
        self.config: PCLDiscriminatorConfig = config
        before = config.channels * (_BANDS if config.wavelet else 1)
        layers: list[nn.Module] = []
        for index in range(LAYERS):
            width = config.width * 2 ** (index // 2)
            convolution = nn.Conv2d(before, width, 3, stride=1 + index % 2, padding=1, bias=False)
            layers += [nn.Sequential(convolution, nn.BatchNorm2d(width)), nn.LeakyReLU(_SLOPE)]
            before = width
        self.features = nn.Sequential(*layers)
        if config.side is None:
            self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(_PLACES), nn.Conv2d(before, 1, 1))
        else:
            self.classifier = nn.Sequential(
                nn.Flatten(),
                nn.Linear(before * (config.side // config.shrinking) ** 2, _HIDDEN),
                nn.LeakyReLU(_SLOPE),
                nn.Linear(_HIDDEN, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x)[0]

    def embed(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map pictures to their logits and the features of all eight layers.

        Raises:
            ConfigError: pictures of other channels, too small, or not of the dense end's size.
        """
        self._refuse(x, least=2 if self.config.wavelet else 1)
        side = self.config.side
        if side is not None and x.shape[-2:] != (side, side):
            raise ConfigError(
                f"the discriminator pcl is set to pictures of {side}×{side}, got "
                f"{x.shape[-1]}×{x.shape[-2]}; set its side to null for any size, or data.patch to fit"
            )
        if self.training and len(x) == 1 and max(x.shape[-2:]) <= self.config.shrinking:
            raise ConfigError(
                f"the discriminator pcl has one value left of one patch of {x.shape[-1]}×{x.shape[-2]} "
                "pixels, which its batch norm cannot learn from; raise data.batch or data.patch"
            )
        x = haar_details(x) if self.config.wavelet else x  # B 3C H/2 W/2
        found: list[Tensor] = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                found.append(x)
        return self.classifier(x), found


CONFIG = PCLDiscriminatorConfig


def from_official(state: Mapping[str, Tensor]) -> tuple[PCLDiscriminatorConfig, dict[str, Tensor]] | None:
    """Recognise the authors' `Discriminator` by its keys and shapes; return config and state, or None.

    The wavelet's filters, which their state holds, are Haar's, and ours needs none.
    """
    first, last = state.get("features.0.0.weight"), state.get("classifier.1.weight")
    if first is None or last is None or first.ndim != 4 or "features.14.1.running_mean" not in state:
        return None
    wavelet = "DWT2.h0_col" in state
    side = None
    if last.ndim == 2:
        cells = last.shape[1] // state["features.14.0.weight"].shape[0]
        side = round(cells**0.5) * 2 ** (_HALVINGS + wavelet)
    config = PCLDiscriminatorConfig(
        channels=first.shape[1] // (_BANDS if wavelet else 1),
        width=first.shape[0],
        wavelet=wavelet,
        side=side,
    )
    return config, {key: value for key, value in state.items() if not key.startswith("DWT2.")}
