"""RFDN: 1×1 convolutions distil features beside shallow residual blocks; all blocks are heard at the end.

Liu, Tang, Wu, ECCV Workshops 2020, arXiv:2009.11551. `forward` follows the paper's overview figure: a
convolution, residual feature distillation blocks (RFDB), all outputs of which are fused, a long skip, a
convolution and a pixel shuffle.

Shapes: B batch, C picture channels, N width, H W low resolution, s scale.

Two forms: the paper's, whose blocks weigh channels by contrast and have a skip ("contrast"), and the one that
won the AIM 2020 challenge ("spatial", E-RFDN), whose blocks weigh places and have none. Of the paper's, the
authors published neither code nor weights: it is put together from their answers about it, and has the
parameter counts of their table for both sizes and all scales.

No halo: means go over the whole picture, and the attention by places enlarges by how large the picture is.

Departs from the authors' code:
- Sides below 15 pixels, at which it fails, are continued mirrored and cut off again ("spatial").
- Their network enlarges by 4 only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from relume.core.card import Card, Task, claims_of
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed_state
from relume.nn.distillation import OFFICIAL_NAMES as DISTILLATION_NAMES
from relume.nn.distillation import CollectedBlocks, FeatureDistillation
from relume.nn.feature_attention import OFFICIAL_NAMES as ATTENTION_NAMES
from relume.nn.feature_attention import ContrastAttention, SpatialAttention, filled_for_places
from relume.nn.network import Network
from relume.nn.padding import cut
from relume.nn.subpixels import SubpixelNetwork

_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
# Table 3, trained on DIV2K.
_FIGURES = {
    "rfdn-x2": ((38.05, 0.9606), (33.68, 0.9184), (32.16, 0.8994), (32.12, 0.9278), (38.88, 0.9773)),
    "rfdn-x3": ((34.41, 0.9273), (30.34, 0.8420), (29.09, 0.8050), (28.21, 0.8525), (33.67, 0.9449)),
    "rfdn-x4": ((32.24, 0.8952), (28.61, 0.7819), (27.57, 0.7360), (26.11, 0.7858), (30.58, 0.9089)),
}

CARD = Card(
    name="rfdn",
    title="Residual Feature Distillation Network for Lightweight Image Super-Resolution",
    summary=(
        "IMDN made lighter: 1×1 convolutions keep what IMDN splits off, and the 3×3 convolutions have skips "
        "of their own. A form of it with attention by places won the AIM 2020 challenge for efficient "
        "super-resolution."
    ),
    when=(
        "For a light network of convolutions alone: it claims a little more than IMDN with a quarter fewer "
        "parameters."
    ),
    venue="ECCV Workshops 2020",
    task=Task.SUPER_RESOLUTION,
    arxiv="2009.11551",
    code="https://github.com/njulj/RFDN",
    claims=claims_of(_FIGURES, _SETS),
)

_SLOPE = 0.05


class RFDNConfig(Config):
    """Settings of an RFDN; the defaults are the paper's.

    Attributes:
        scale: s.
        channels: C of the pictures.
        width: N ("nf").
        blocks: how many ("num_modules").
        attention: "contrast", in blocks with a skip, or "spatial", see the file's head.
        narrow: channels in between of the attention (N over 4).
        image_range: factor on the input inside.
    """

    scale: PositiveInt = 4
    channels: PositiveInt = 3
    width: Annotated[int, Field(ge=2)] = 48
    blocks: PositiveInt = 6
    attention: Literal["contrast", "spatial"] = "contrast"
    narrow: PositiveInt = 12
    image_range: PositiveFloat = 255.0


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _attention(config: RFDNConfig) -> nn.Module:
    narrow = config.narrow
    if config.attention == "contrast":
        return ContrastAttention(config.width, narrow)
    look = nn.Sequential(
        _conv(narrow, narrow), nn.ReLU(), _conv(narrow, narrow), nn.ReLU(), _conv(narrow, narrow)
    )
    return SpatialAttention(config.width, narrow, shrink=nn.Conv2d(narrow, narrow, 3, stride=2), look=look)


class Block(nn.Module):
    """Distillation, then attention (RFDB); with a skip unless the attention is "spatial"."""

    def __init__(self, config: RFDNConfig) -> None:
        super().__init__()
        self.distillation = FeatureDistillation(
            config.width, convolution=_conv, activation=nn.LeakyReLU(_SLOPE)
        )
        self.attend = _attention(config)
        self.has_skip = config.attention == "contrast"

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(self.distillation(x))
        return y + x if self.has_skip else y  # B N H W


class RFDN(SubpixelNetwork):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: RFDNConfig) -> None:
        super().__init__()
        self.config: RFDNConfig = config
        width = config.width
        self.shallow = _conv(config.channels, width)
        self.trunk = CollectedBlocks(
            (Block(config) for _ in range(config.blocks)),
            width=width, activation=nn.LeakyReLU(_SLOPE), close=_conv(width, width),
        )  # fmt: skip
        self.reconstruct = _conv(width, config.channels * config.scale**2)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; no halo, see the file's head."""
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        config, low = self.config, x
        if config.attention == "spatial":
            x = filled_for_places(x)
        features = self.trunk(self.shallow(x * config.image_range))  # B N H W
        return cut(self.enlarged(features) / config.image_range, low, scale=config.scale)  # B C sH sW


_AIM: dict[str, object] = {"scale": 4, "width": 50, "blocks": 4, "attention": "spatial"}

VARIANTS = {
    **{
        f"rfdn-x{scale}": Variant(RFDNConfig(scale=scale), parameters)
        for scale, parameters in {2: 534_036, 3: 540_531, 4: 549_624}.items()
    },
    **{
        f"rfdn-l-x{scale}": Variant(RFDNConfig(scale=scale, width=52, narrow=13), parameters)
        for scale, parameters in {2: 625_962, 3: 632_997, 4: 642_846}.items()
    },
    "rfdn-aim-x4": Variant(RFDNConfig.parse(_AIM, where="rfdn-aim-x4"), 433_448),
}

NETWORK = RFDN
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"input_scale": "image_range"}
"""What the authors' scripts do around the network, which checkpoints do not show, and our name for it."""


def golden(network: Network, metadata: Mapping[str, str], x: Tensor) -> dict[str, Tensor]:
    """Compute a recorded case; one without a pipeline holds values in the network's own range."""
    assert isinstance(network, RFDN)
    own = 1.0 if metadata.get("pipeline") else network.config.image_range
    return {"output": network(x / own) * own}


def tiny(config: RFDNConfig) -> RFDNConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    # In the authors' range, attention whose weights are noise is all or nothing.
    return config.model_copy(update={"width": 8, "blocks": 2, "narrow": 8, "image_range": 1.0})


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^fea_conv\.", "shallow."),
    (r"^c\.0\.", "trunk.fuse."),
    (r"^LR_conv\.", "trunk.close."),
    (r"^upsampler\.0\.", "reconstruct."),
    *DISTILLATION_NAMES,
    *ATTENTION_NAMES,
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint, or one of the paper's form in the names of their code.

    Checkpoints do not show their range of values; it is taken to be 0..255, as in the authors' scripts.

    Returns:
        Our config, state and steps, or None where the keys are not RFDN's.
    """
    if not {"B1.c1_d.weight", "B1.c1_r.weight", "c.0.weight", "LR_conv.weight"} <= state.keys():
        return None
    ours = renamed_state(state, _RENAMES)
    width, channels = ours["shallow.weight"].shape[:2]
    spatial = "B1.esa.conv1.weight" in state
    config = RFDNConfig(
        scale=math.isqrt(ours["reconstruct.weight"].shape[0] // channels),
        channels=channels,
        width=width,
        blocks=ours["trunk.fuse.weight"].shape[1] // width,
        attention="spatial" if spatial else "contrast",
        narrow=ours[f"trunk.blocks.0.attend.{'reduce' if spatial else 'squeeze'}.weight"].shape[0],
    )
    return Official(config, ours)
