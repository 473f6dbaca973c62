"""The patch discriminator of pix2pix: one logit for each patch of 70 × 70 pixels.

Isola et al., CVPR 2017, arXiv:1611.07004, sections 3.2.2 and 6.1.2: C64-C128-C256-C512, convolutions 4×4, the
first `depth` of stride 2, the last C and the logits' convolution of stride 1; batch norm in all but the
first and the last; leaky ReLU of slope 0.2. The patch that a logit sees has 16, 34, 70, 142 pixels a side for
a `depth` of 1, 2, 3, 4.

Shapes: B C H W in; B 1 H' W' out, H' = H / 2^depth - 2, rounded down at each halving.
Departs from the paper: it sees the output alone, not the input beside it, whose size is another where
pictures are enlarged; logits, the sigmoid is the loss's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from relume.nn.discriminators.base import Discriminator, DiscriminatorConfig

_SLOPE = 0.2
_WIDEST = 8


class PatchDiscriminatorConfig(DiscriminatorConfig):
    """Settings of a patch discriminator; the defaults are the paper's 70 × 70.

    Attributes:
        depth: convolutions of stride 2.
    """

    name: Literal["patch"] = "patch"
    depth: PositiveInt = 3

    def build(self) -> PatchDiscriminator:
        """Return the discriminator."""
        return PatchDiscriminator(self)


class PatchDiscriminator(Discriminator):
    """Convolutions in a row; `layers` has the numbers of the authors' `model`."""

    def __init__(self, config: PatchDiscriminatorConfig) -> None:
        super().__init__()
        self.config: PatchDiscriminatorConfig = config
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(config.channels, width, 4, stride=2, padding=1)]
        layers.append(nn.LeakyReLU(_SLOPE))
        for index in range(1, config.depth + 1):
            wider = config.width * min(2**index, _WIDEST)
            stride = 2 if index < config.depth else 1
            layers.append(nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(wider), nn.LeakyReLU(_SLOPE)]
            width = wider
        layers.append(nn.Conv2d(width, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        # The two convolutions of stride 1 take a pixel each off what is left.
        self._refuse(x, least=3 * 2**self.config.depth)
        return self.layers(x)  # B 1 H' W'


CONFIG = PatchDiscriminatorConfig


def from_official(
    state: Mapping[str, Tensor],
) -> tuple[PatchDiscriminatorConfig, dict[str, Tensor]] | None:
    """Recognise the authors' `NLayerDiscriminator` with batch norm; return config and state, or None."""
    first = state.get("model.0.weight")
    if first is None or first.ndim != 4 or first.shape[2:] != (4, 4) or "model.3.running_mean" not in state:
        return None
    depth = sum(key.endswith(".running_mean") for key in state)
    config = PatchDiscriminatorConfig(channels=first.shape[1], width=first.shape[0], depth=depth)
    return config, {key.replace("model.", "layers.", 1): value for key, value in state.items()}
