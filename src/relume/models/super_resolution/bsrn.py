"""BSRN: RFDN with blueprint separable convolutions, attended by place and by contrast.

Li et al., CVPR Workshops 2022, arXiv:2205.05996. `forward` follows the paper's overview figure: four copies
of the picture, a convolution, efficient separable distillation blocks (ESDB), all outputs of which are fused,
a long skip, a convolution and a pixel shuffle. BSRN-S is its small form, entered in the NTIRE 2022 challenge.

Shapes: B batch, C picture channels, N width, H W low resolution, s scale.

| form | attention | convolutions |
|---|---|---|
| "paper" | by place, then by contrast | any of four kinds; blueprint ones in the published networks |
| "small" | by place, then a learnt weight for each channel and a mixing | blueprint, mixing with a bias |

No halo: the attention by places enlarges by how large the picture is, and means go over all of it.

Departs from the paper and its code:
- Sides below 15 pixels, at which the authors' code fails, are continued mirrored and cut off again.
- The authors' 1×1 convolutions of the small form are linear layers over the last axis; here they are
  convolutions, which compute the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from relume.core.card import Card, Task, claims_of
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed_state
from relume.nn.blueprint import BlueprintConv2d, SubspaceBlueprintConv2d
from relume.nn.distillation import OFFICIAL_NAMES as DISTILLATION_NAMES
from relume.nn.distillation import CollectedBlocks, FeatureDistillation
from relume.nn.feature_attention import OFFICIAL_NAMES as ATTENTION_NAMES
from relume.nn.feature_attention import ContrastAttention, SpatialAttention, filled_for_places
from relume.nn.padding import cut
from relume.nn.subpixels import SubpixelNetwork

_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
# As the page of LKDN's code quotes the paper, trained on DIV2K and Flickr2K.
_FIGURES = {
    "bsrn-x4": ((32.35, 0.8966), (28.73, 0.7847), (27.65, 0.7387), (26.27, 0.7908), (30.84, 0.9123)),
}

CARD = Card(
    name="bsrn",
    title="Blueprint Separable Residual Network for Efficient Image Super-Resolution",
    summary=(
        "RFDN with convolutions taken apart, each into a mixing of channels and one small kernel a channel, "
        "and with attention by place and by contrast. Its small form won the track for complexity of the "
        "NTIRE 2022 challenge."
    ),
    when=(
        "Where parameters and multiplications are to be few: it claims more than RFDN with two thirds of "
        "its parameters. BSRN-S has less than half of BSRN's."
    ),
    venue="CVPR Workshops 2022",
    task=Task.SUPER_RESOLUTION,
    arxiv="2205.05996",
    code="https://github.com/xiaom233/BSRN",
    claims=claims_of(_FIGURES, _SETS),
)

_COPIES = 4
"""Of the picture, that the first convolution takes."""

Kind = Literal["blueprint", "subspace", "depthwise", "plain"]


class BSRNConfig(Config):
    """Settings of a BSRN; the defaults are the paper's.

    Attributes:
        form: see the file's head.
        scale: s.
        channels: C of the pictures.
        width: N ("num_feat").
        blocks: how many.
        convolution: kind of the 3×3 convolutions ("conv"); "depthwise" convolves first and mixes then.
        share: channels in between over inputs, where these are "subspace" ("p").
        narrow: channels in between of the attention by places (N over 4).
        squeezed: channels in between of the attention by contrast (N over 16).
    """

    form: Literal["paper", "small"] = "paper"
    scale: PositiveInt = 4
    channels: PositiveInt = 3
    width: Annotated[int, Field(ge=2)] = 64
    blocks: PositiveInt = 8
    convolution: Kind = "blueprint"
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    narrow: PositiveInt = 16
    squeezed: PositiveInt = 4

    @model_validator(mode="after")
    def _fits(self) -> BSRNConfig:
        if self.form == "small" and self.convolution != "blueprint":
            raise ValueError(f"the small form has blueprint convolutions, not {self.convolution!r}")
        return self


class DepthwiseSeparableConv2d(nn.Sequential):
    """Convolves each channel of `B I H W` 3×3, then mixes to `B O H W`."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, padding: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, stride=stride, padding=padding, groups=inputs),
            nn.Conv2d(inputs, outputs, 1, bias=False),
        )


def _conv(inputs: int, outputs: int, *, config: BSRNConfig, stride: int = 1, padding: int = 1) -> nn.Module:
    match config.convolution:
        case "blueprint":
            biased = config.form == "small"
            return BlueprintConv2d(inputs, outputs, stride=stride, padding=padding, bias=biased)
        case "subspace":
            return SubspaceBlueprintConv2d(
                inputs, outputs, stride=stride, padding=padding, share=config.share
            )
        case "depthwise":
            return DepthwiseSeparableConv2d(inputs, outputs, stride=stride, padding=padding)
        case "plain":
            return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=padding)


class WeighedMixing(nn.Module):
    """A learnt weight for each channel and a 1×1 convolution, in place of attention by channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.normal(mean=1.0, std=0.2, size=(width, 1, 1)))
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x * self.weights)


def _attention_by_place(config: BSRNConfig) -> SpatialAttention:
    narrow = config.narrow
    # In the authors' code the subspace of these is a quarter, whatever the others' is.
    conv = partial(_conv, narrow, narrow, config=config.model_copy(update={"share": 0.25}))
    plain = config.form == "small"
    shrink = nn.Conv2d(narrow, narrow, 3, stride=2) if plain else conv(stride=2, padding=0)
    look = nn.Sequential(conv(), nn.GELU(), conv(), nn.GELU(), conv())
    return SpatialAttention(config.width, narrow, shrink=shrink, look=look)


class Block(nn.Module):
    """Distillation, attention by place and by channel, and a skip (ESDB)."""

    def __init__(self, config: BSRNConfig) -> None:
        super().__init__()
        width = config.width
        self.distillation = FeatureDistillation(
            width, convolution=partial(_conv, config=config), activation=nn.GELU()
        )
        self.attend = _attention_by_place(config)
        self.weigh = (
            WeighedMixing(width) if config.form == "small" else ContrastAttention(width, config.squeezed)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.weigh(self.attend(self.distillation(x))) + x  # B N H W


class BSRN(SubpixelNetwork):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: BSRNConfig) -> None:
        super().__init__()
        self.config: BSRNConfig = config
        width = config.width
        self.shallow = _conv(config.channels * _COPIES, width, config=config)
        self.trunk = CollectedBlocks(
            (Block(config) for _ in range(config.blocks)),
            width=width, activation=nn.GELU(), close=_conv(width, width, config=config),
        )  # fmt: skip
        self.reconstruct = nn.Conv2d(width, config.channels * config.scale**2, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; no halo, see the file's head."""
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        copies = torch.cat([filled_for_places(x)] * _COPIES, 1)  # B 4C H W
        features = self.trunk(self.shallow(copies))  # B N H W
        return cut(self.enlarged(features), x, scale=self.config.scale)  # B C sH sW


_SMALL: dict[str, object] = {"form": "small", "width": 48, "blocks": 5, "narrow": 12}

VARIANTS = {
    **{
        f"bsrn-x{scale}": Variant(BSRNConfig(scale=scale), parameters)
        for scale, parameters in {2: 331_628, 3: 340_283, 4: 352_400}.items()
    },
    **{
        f"bsrn-s-x{scale}": Variant(BSRNConfig.parse({**_SMALL, "scale": scale}, where="bsrn-s"), parameters)
        for scale, parameters in {2: 140_700, 3: 147_195, 4: 156_288}.items()
    },
}

NETWORK = BSRN
"""What a variant's config builds."""

OFFICIAL_SETTINGS: dict[str, str] = {}
"""Authors' constructor arguments that their checkpoints do not show: none."""


def tiny(config: BSRNConfig) -> BSRNConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"width": 8, "blocks": 2, "narrow": 4, "squeezed": 8})


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^fea_conv\.", "shallow."),
    (r"^c1\.", "trunk.fuse."),
    (r"^c2\.", "trunk.close."),
    (r"^upsampler\.upsampleOneStep\.0\.", "reconstruct."),
    (r"\.cca\.conv_du\.0\.", ".weigh.squeeze."),
    (r"\.cca\.conv_du\.2\.", ".weigh.expand."),
    (r"\.cw$", ".weigh.weights"),
    (r"\.conv_out\.", ".weigh.mix."),
    *DISTILLATION_NAMES,
    *ATTENTION_NAMES,
)
# Layers of a convolution that is taken apart, in the order in which they are run.
_LAYERS: dict[Kind, dict[str, int]] = {
    "blueprint": {"pw": 0, "dw": 1},
    "subspace": {"pw1": 0, "pw2": 1, "dw": 2},
    "depthwise": {"dw": 0, "pw": 1},
    "plain": {},
}


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint of either form.

    Returns:
        Our config, state and steps, or None where the keys are not BSRN's.
    """
    if not {"B1.c1_d.weight", "B1.esa.conv1.weight", "c1.weight"} <= state.keys():
        return None
    kind = _kind(state)

    def numbered(match: re.Match[str]) -> str:
        return f".{_LAYERS[kind][match[1]]}."

    ours = {}
    for name, value in renamed_state(state, (*_RENAMES, (r"\.([pd]w\d?)\.", numbered))).items():
        if name.endswith(".weights"):
            ours[name] = value.reshape(-1, 1, 1)
        else:  # a linear layer is a 1×1 convolution
            ours[name] = value[..., None, None] if value.ndim == 2 else value
    width, fused = ours["trunk.fuse.weight"].shape[:2]
    subpixels = ours["reconstruct.weight"].shape[0]
    values: dict[str, object] = {
        "form": "small" if "B1.cw" in state else "paper",
        "width": width,
        "blocks": fused // width,
        "convolution": kind,
        "narrow": ours["trunk.blocks.0.attend.reduce.weight"].shape[0],
    }
    # The first convolution's first layer has the picture's channels, four times.
    first = ours["shallow.weight" if kind == "plain" else "shallow.0.weight"]
    channels = first.shape[0 if kind == "depthwise" else 1] // _COPIES
    values |= {"channels": channels, "scale": math.isqrt(subpixels // channels)}
    if kind == "subspace":
        # Channels in between are a share of the inputs, rounded up; the smaller quotient fits both.
        wide = ours["trunk.close.0.weight"].shape[0]
        values["share"] = min(wide / width, first.shape[0] / first.shape[1])
    if (squeeze := "trunk.blocks.0.weigh.squeeze.weight") in ours:
        values["squeezed"] = ours[squeeze].shape[0]
    return Official(BSRNConfig.parse(values, where="a BSRN of its authors"), ours)


def _kind(state: Mapping[str, Tensor]) -> Kind:
    if "B1.c4.weight" in state:
        return "plain"
    if "B1.c4.pw1.weight" in state:
        return "subspace"
    # This one halves the channels, so its kernels show whether they come before or after.
    halves = state["B1.c4.dw.weight"].shape[0] == state["B1.c4.pw.weight"].shape[0]
    return "blueprint" if halves else "depthwise"
