"""ESSAformer: attention by spectral correlation, linear in the pixels, for cubes of many bands.

Zhang et al., ICCV 2023, arXiv:2307.14010. `forward` follows figure 2: a 3×3 convolution, features enlarged
and shrunk by turns, each time with a skip from the last features of that size and refined by an encoder with
attention, and a 3×3 convolution. The encoders and the sampling are the same each time.

Shapes: B batch, C bands of the cube, N width, P pixels, H W low resolution, s scale.

    ESSA: W (V + Q̂ (K̂ᵀ V) / √P),   Q̂, K̂ from q, k: centred over channels, squared, divided by their sum; then
    each pixel's q̂ and each channel's k̂, over all pixels, are made of length 1

The bands are the contract's channels. It has no halo: attention sums over all pixels.

Departs from the paper and its code:
- Lengths are divided out after the products over pixels instead of before, so nothing as large as the keys is
  made for it.
- An input is a cube, whose values are reflectances over the largest that its sensor gives, 0..1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed_state
from relume.nn.network import Network

CARD = Card(
    name="essaformer",
    title="ESSAformer: Efficient Transformer for Hyperspectral Image Super-resolution",
    summary=(
        "A network for cubes of any number of bands, whose attention compares spectra by their correlation "
        "and costs no more than the pixels there are, so that it runs on enlarged features as well."
    ),
    when="For hyperspectral cubes, not for photos.",
    venue="ICCV 2023",
    task=Task.SUPER_RESOLUTION,
    arxiv="2307.14010",
    code="https://github.com/Rexzhan/ESSAformer",
    use=(
        "relume train essaformer-128-x2 --data cubes/ --set network.bands=198",
        "relume upscale scene.mat -n runs/essaformer-128-x2/essaformer-128-x2.safetensors",
    ),
)

_EPSILON = 1e-7
"""What is added to the sum of squares of a pixel's channels."""
_SHORTEST = 1e-12
"""What a length is at least when it is divided by."""


class ESSAformerConfig(Config):
    """Settings of an ESSAformer; the defaults are the authors' for Chikusei.

    Attributes:
        scale: s.
        bands: C of the cubes ("inch").
        width: N ("dim"), a multiple of 4, or of 9 for x3.
        dropout: share of channels that training leaves out.
    """

    scale: Literal[2, 3, 4, 8, 16] = 4
    bands: PositiveInt = 128
    width: PositiveInt = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _fits(self) -> ESSAformerConfig:
        share = 9 if self.scale == 3 else 4
        if self.width % share:
            raise ValueError(f"width must be a multiple of {share} for x{self.scale}, got {self.width}")
        return self


class SpectralAttention(nn.Module):
    """Attention by the correlation of spectra (ESSA), without a softmax, so linear in the pixels; `B P N`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, 2)
        query, key = _shares(query), _shares(key)
        lengths = torch.linalg.vector_norm(key, dim=1).clamp(min=_SHORTEST)  # B N
        spectra = (key.transpose(1, 2) @ value) / (lengths[:, :, None] * x.shape[1] ** 0.5)  # B N N
        mixed: Tensor = self.project(value + F.normalize(query, dim=2) @ spectra)
        return mixed


def _shares(x: Tensor) -> Tensor:
    """Return what each channel has of a pixel's squares, centred over channels; `B P N`."""
    squares = (x - x.mean(2, keepdim=True)).square()
    return squares / (squares.sum(2, keepdim=True) + _EPSILON)


class Encoder(nn.Module):
    """Attention, put beside its input and mixed by three convolutions, with a skip; `B N H W`."""

    def __init__(self, config: ESSAformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(width)
        self.attention = SpectralAttention(width)
        self.drop = nn.Dropout2d(config.dropout)
        self.mix = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 1), nn.LeakyReLU(0.2), nn.Dropout2d(config.dropout),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.LeakyReLU(0.2), nn.Dropout2d(config.dropout),
            nn.Conv2d(2 * width, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        seen = self.attention(self.norm(x.flatten(2).transpose(1, 2)))  # B P N
        seen = self.drop(seen.transpose(1, 2).unflatten(2, x.shape[2:]))
        return x + self.mix(torch.cat((seen, x), 1))


def _factors(scale: int) -> tuple[int, ...]:
    """Return the steps by which features are enlarged: 3, or doublings."""
    return (3,) if scale == 3 else (2,) * (scale.bit_length() - 1)


class ESSAformer(Network):
    """The whole network. Takes cubes `B C H W` with values 0..1 and gives `B C sH sW`, H and W from 1 up."""

    def __init__(self, config: ESSAformerConfig) -> None:
        super().__init__()
        self.config: ESSAformerConfig = config
        width = config.width
        self.shallow = nn.Conv2d(config.bands, width, 3, padding=1)
        self.enlarge, self.shrink = nn.Sequential(), nn.Sequential()
        for factor in _factors(config.scale):
            self.enlarge.append(nn.Conv2d(width, width * factor**2, 3, padding=1))
            self.enlarge.append(nn.PixelShuffle(factor))
            self.shrink.append(nn.Conv2d(width, width // factor**2, 3, padding=1))
            self.shrink.append(nn.PixelUnshuffle(factor))
        self.refine_high = Encoder(config)
        self.refine_low = Encoder(config)
        self.reconstruct = nn.Conv2d(width, config.bands, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """One cube in, one cube out, `scale` times as large; no halo, see the file's head."""
        return Contract(scale=self.config.scale, channels=self.config.bands, halo=None, cubes=True)

    def forward(self, x: Tensor) -> Tensor:
        low = self.shallow(x)  # B N H W
        high = self.refine_high(self.enlarge(low))  # B N sH sW
        for _ in range(2):
            low = self.refine_low(self.shrink(high) + low)
            high = self.refine_high(self.enlarge(low) + high)
        return self.reconstruct(high)


VARIANTS = {
    f"essaformer-{bands}-x{scale}": Variant(ESSAformerConfig(scale=scale, bands=bands), parameters)
    for bands, scale, parameters in ((128, 2, 9_132_992), (128, 4, 11_640_832), (31, 4, 11_193_759))
}

NETWORK = ESSAformer
"""What a variant's config builds."""

OFFICIAL_SETTINGS: dict[str, str] = {}
"""Authors' arguments that their checkpoints do not show; there are none."""


def tiny(config: ESSAformerConfig) -> ESSAformerConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"bands": 5, "width": 4, "dropout": 0.0})


# Authors' names and ours.
_RENAMES = (
    (r"^conv_first\.", "shallow."),
    (r"^conv_last\.", "reconstruct."),
    (r"^blockup\.convupsample\.", "enlarge."),
    (r"^blockup\.convdownsample\.", "shrink."),
    (r"^blockup\.convup\.", "refine_high."),
    (r"^blockup\.convdown\.", "refine_low."),
    (r"\.conv[ud]\.", ".mix."),
    (r"\.attn\.lnqkv\.", ".attention.qkv."),
    (r"\.attn\.ln\.", ".attention.project."),
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint.

    Returns:
        Our config and state, or None where the keys are not ESSAformer's.
    """
    if "blockup.convup.attn.lnqkv.weight" not in state or "blockup.convupsample.0.weight" not in state:
        return None
    ours = renamed_state(state, _RENAMES)
    width, bands = ours["shallow.weight"].shape[:2]
    steps = sum(re.fullmatch(r"enlarge\.\d+\.weight", key) is not None for key in ours)
    by_three = ours["enlarge.0.weight"].shape[0] == 9 * width
    values = {"scale": 3 if by_three else 2**steps, "bands": bands, "width": width}
    return Official(ESSAformerConfig.parse(values, where="an ESSAformer of its authors"), ours)
