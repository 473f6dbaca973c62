"""SwinIR: layers of shifted-window attention between a shallow convolution and a reconstruction.

Liang et al., ICCV Workshops 2021, arXiv:2108.10257. `forward` follows figure 2: a 3×3 convolution, residual
Swin transformer blocks (RSTB) of layers from `nn.swin`, a norm and a convolution with a long skip, then one
of four reconstructions.

Shapes: B batch, C picture channels, N width, H W low resolution (in windows: rounded up to their multiples),
s scale.

The contract has no halo. A layer looks no farther than its window, but which way depends on where a pixel
lies in the grid of windows, which begins at the picture's corner: a tile cut elsewhere would see other
neighbours, however wide its halo. So pictures run whole, or in blended tiles.

The authors' code, which the published weights are of, has what the paper leaves out, and so has this: a norm
before the first block and one after the last; the mean colour taken from the input and given back; and, for
real pictures, enlarging by nearest neighbours and convolutions in place of sub-pixels.

Departs from the paper and its code:
- Trains without stochastic depth (authors: 0.1 in training; none in use).
- Which factor the centred input is taken times, no checkpoint shows: it is 255 in the authors' test
  (`main_test_swinir.py`) for JPEG's traces, and 1 for all else. Of theirs, those for JPEG alone have windows
  of 7 pixels and keep the size, and are told by that.
- Windows are always shifted in every second layer; the authors' code leaves that out where its setting
  `img_size` is no larger than a window.
- `attention` "plain" is the form that DCPT's code trains (arXiv:2501.15510): no bias of relative places, and
  no mask, so that what is shifted over the border attends to the opposite border.
- The authors' file fills up to whole windows inside the network and BasicSR's leaves that to its tests; both
  mirror at the bottom and right, as is done here, for any size.
- The published counts of the light variants (878, 886 and 897 thousand) leave the tables of relative places
  (32,400 numbers) out; here they are counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Task, claims_of
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, depths_of, renamed_state
from relume.nn.colour import RGB_MEAN
from relume.nn.network import Network
from relume.nn.padding import cut
from relume.nn.swin import (
    OFFICIAL_NAMES,
    SwinLayer,
    Windows,
    closing,
    filled_to_windows,
    pictured,
    pixels_of,
    windows_of,
)  # fmt: skip
from relume.nn.upsample import SubPixels, official_subpixels, respread_subpixels

_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
# Tables 2 (trained on DIV2K and Flickr2K) and 3, without self-ensemble.
_FIGURES = {
    "swinir-x2": ((38.42, 0.9623), (34.46, 0.9250), (32.53, 0.9041), (33.81, 0.9427), (39.92, 0.9797)),
    "swinir-x3": ((34.97, 0.9318), (30.93, 0.8534), (29.46, 0.8145), (29.75, 0.8826), (35.12, 0.9537)),
    "swinir-x4": ((32.92, 0.9044), (29.09, 0.7950), (27.92, 0.7489), (27.45, 0.8254), (32.03, 0.9260)),
    "swinir-light-x2": ((38.14, 0.9611), (33.86, 0.9206), (32.31, 0.9012), (32.76, 0.9340), (39.12, 0.9783)),
    "swinir-light-x3": ((34.62, 0.9289), (30.54, 0.8463), (29.20, 0.8082), (28.66, 0.8624), (33.98, 0.9478)),
    "swinir-light-x4": ((32.44, 0.8976), (28.77, 0.7858), (27.69, 0.7406), (26.47, 0.7980), (30.92, 0.9151)),
}

CARD = Card(
    name="swinir",
    title="SwinIR: Image Restoration Using Swin Transformer",
    summary=(
        "A transformer for restoration: attention inside windows that shift from layer to layer, in residual "
        "blocks closed by a convolution. The paper claims more than the convolutional networks of its time "
        "with a third of their parameters, for enlarging, denoising and removing JPEG's traces."
    ),
    when=(
        "When quality counts and a GPU is at hand; its light form is for less. It is also there for noise "
        "and for JPEG's traces."
    ),
    venue="ICCV Workshops 2021",
    task=Task.SUPER_RESOLUTION,
    arxiv="2108.10257",
    code="https://github.com/JingyunLiang/SwinIR",
    claims=claims_of(_FIGURES, _SETS),
)


class SwinIRConfig(Config):
    """Settings of a SwinIR; the defaults are the paper's middle size for classical super-resolution.

    Attributes:
        scale: s; 1 for pictures that keep their size.
        channels: C of the pictures.
        width: N ("embed_dim").
        depths: Swin layers in each block.
        heads: of attention, in each block ("num_heads"); N is a multiple of each.
        window: side of a window, pixels.
        ratio: hidden width of the feed-forward networks over N ("mlp_ratio").
        attention: "positional", or "plain", see the file's head.
        qkv_bias: whether queries, keys and values have a bias.
        first_norm: whether a norm stands before the first block ("patch_norm").
        connection: convolutions that close each block and the trunk: "1conv", or "3conv" with a quarter of
            the width between them ("resi_connection").
        reconstruction: "shuffle" through `features` channels; "direct" by one convolution, to save
            parameters; "nearest" with convolutions at high resolution, for real pictures; "residual" (scale 1
            only) adds to the input ("upsampler").
        features: channels before the last convolution of "shuffle" and "nearest".
        image_range: factor on the centred input ("img_range").
    """

    scale: Literal[1, 2, 3, 4, 8] = 4
    channels: PositiveInt = 3
    width: PositiveInt = 180
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (6,) * 6
    heads: tuple[PositiveInt, ...] = (6,) * 6
    window: Annotated[int, Field(ge=2)] = 8
    ratio: PositiveFloat = 2.0
    attention: Literal["positional", "plain"] = "positional"
    qkv_bias: bool = True
    first_norm: bool = True
    connection: Literal["1conv", "3conv"] = "1conv"
    reconstruction: Literal["shuffle", "direct", "nearest", "residual"] = "shuffle"
    features: PositiveInt = 64
    image_range: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _fits(self) -> SwinIRConfig:
        if len(self.heads) != len(self.depths):
            raise ValueError(f"heads names {len(self.heads)} blocks, depths {len(self.depths)}; name as many")
        for heads in self.heads:
            if self.width % heads:
                raise ValueError(f"width {self.width} cannot be shared by {heads} heads; choose a multiple")
        if self.reconstruction == "residual" and self.scale != 1:
            raise ValueError(f"reconstruction 'residual' keeps the size: scale must be 1, not {self.scale}")
        if self.reconstruction == "nearest" and self.scale not in (2, 4):
            raise ValueError(f"reconstruction 'nearest' enlarges by 2 or 4, not {self.scale}")
        return self


class ResidualSwinBlock(nn.Module):
    """Swin layers, every second one with shifted windows, and a convolution; with a skip (RSTB, eq. 5, 6)."""

    def __init__(self, depth: int, heads: int, config: SwinIRConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SwinLayer(
                config.width, heads, config.window, ratio=config.ratio,
                positions=config.attention == "positional", qkv_bias=config.qkv_bias,
            )
            for _ in range(depth)
        )  # fmt: skip
        self.close = closing(config.width, config.connection)

    def forward(self, x: Tensor, windows: tuple[Windows, Windows]) -> Tensor:
        """Map `B N H W` to the same, in plain and shifted windows by turns."""
        deep = pixels_of(x)
        for index, layer in enumerate(self.layers):
            deep = layer(deep, windows[index % 2])
        return self.close(pictured(deep, x)) + x


class NearestSteps(nn.Module):
    """Doublings by nearest neighbour, each with a convolution; no pattern of sub-pixels can show."""

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        narrow = config.features
        self.narrow = nn.Conv2d(config.width, narrow, 3, padding=1)
        doublings = config.scale.bit_length() - 1
        self.steps = nn.ModuleList(nn.Conv2d(narrow, narrow, 3, padding=1) for _ in range(doublings))
        self.refine = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.last = nn.Conv2d(narrow, config.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.narrow(x))
        for step in self.steps:
            x = F.leaky_relu(step(F.interpolate(x, scale_factor=2.0, mode="nearest")), 0.2)
        return self.last(F.leaky_relu(self.refine(x), 0.2))


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    """Norm the channels of each pixel, `B N H W`."""
    normed: Tensor = norm(x.permute(0, 2, 3, 1))
    return normed.permute(0, 3, 1, 2)


def _reconstruction(config: SwinIRConfig) -> nn.Module:
    match config.reconstruction:
        case "shuffle":
            return SubPixels(
                config.width, features=config.features, channels=config.channels, scale=config.scale
            )
        case "nearest":
            return NearestSteps(config)
        case "direct" | "residual":
            return nn.Conv2d(config.width, config.channels * config.scale**2, 3, padding=1)


class SwinIR(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        self.config: SwinIRConfig = config
        mean = RGB_MEAN if config.channels == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.mean: Tensor
        self.shallow = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.first_norm = nn.LayerNorm(config.width) if config.first_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            ResidualSwinBlock(depth, heads, config)
            for depth, heads in zip(config.depths, config.heads, strict=True)
        )
        self.norm = nn.LayerNorm(config.width)
        self.fuse = closing(config.width, config.connection)
        self.reconstruct = _reconstruction(config)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; no halo, see the file's head."""
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        low, scale = x, self.config.scale
        x = (filled_to_windows(low, self.config.window) - self.mean) * self.config.image_range
        shallow = self.shallow(x)  # B N H W
        deep = self.fuse(self._trunk(shallow)) + shallow
        output = self.reconstruct(deep)
        match self.config.reconstruction:
            case "direct":
                output = F.pixel_shuffle(output, scale)
            case "residual":
                output = output + x
        return cut(output / self.config.image_range + self.mean, low, scale=scale)

    def _trunk(self, shallow: Tensor) -> Tensor:
        config, (height, width) = self.config, shallow.shape[2:]
        masked = config.attention == "positional"
        plain = windows_of(height, width, config.window, like=shallow)
        shifted = windows_of(
            height, width, config.window, shift=config.window // 2, masked=masked, like=shallow
        )
        x = _normed(self.first_norm, shallow)
        for block in self.blocks:
            x = block(x, (plain, shifted))
        return _normed(self.norm, x)

    def start_from(self, source: Network) -> list[str]:
        """Take over another SwinIR's trunk and, where it enlarges directly, its nearest sub-pixels."""
        left = super().start_from(source)
        ends = [source.reconstruct, self.reconstruct] if isinstance(source, SwinIR) else []
        if "reconstruct.weight" in left and all(isinstance(end, nn.Conv2d) for end in ends):
            assert isinstance(source, SwinIR)
            scales = {"old": source.config.scale, "new": self.config.scale}
            if respread_subpixels(*ends, **scales):  # type: ignore[arg-type]
                left = [name for name in left if not name.startswith("reconstruct.")]
        return left


_LIGHT: dict[str, object] = {"width": 60, "depths": (6,) * 4, "heads": (6,) * 4, "reconstruction": "direct"}
_REAL: dict[str, object] = {"scale": 4, "reconstruction": "nearest"}
_LARGE: dict[str, object] = {"width": 240, "depths": (6,) * 9, "heads": (8,) * 9, "connection": "3conv"}
_SAME: dict[str, object] = {"scale": 1, "reconstruction": "residual"}
# Blocks of JPEG are 8 pixels wide, so that windows of 7 lie differently in each.
_JPEG: dict[str, object] = {**_SAME, "window": 7, "image_range": 255.0}

VARIANTS = {
    name: Variant(SwinIRConfig.parse(settings, where=name), parameters)
    for name, settings, parameters in (
        ("swinir-x2", {"scale": 2}, 11_752_487),
        ("swinir-x3", {"scale": 3}, 11_937_127),
        ("swinir-x4", {"scale": 4}, 11_900_199),
        ("swinir-light-x2", {"scale": 2, **_LIGHT}, 910_152),
        ("swinir-light-x3", {"scale": 3, **_LIGHT}, 918_267),
        ("swinir-light-x4", {"scale": 4, **_LIGHT}, 929_628),
        ("swinir-real-x4", _REAL, 11_715_559),
        ("swinir-real-large-x4", {**_REAL, **_LARGE}, 28_013_059),
        ("swinir-denoise", _SAME, 11_504_163),
        ("swinir-denoise-gray", {**_SAME, "channels": 1}, 11_497_681),
        ("swinir-jpeg", _JPEG, 11_492_067),
        ("swinir-jpeg-gray", {**_JPEG, "channels": 1}, 11_485_585),
        ("swinir-plain", {**_SAME, "attention": "plain"}, 11_455_563),
    )
}

NETWORK = SwinIR
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"img_range": "image_range", "window_size": "window", "num_heads": "heads"}
"""Authors' arguments that their checkpoints do not show (the last two: without tables of relative places)."""


def tiny(config: SwinIRConfig) -> SwinIRConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    small = {"width": 8, "depths": (2,), "heads": (2,), "window": 4 if config.window == 8 else 3}
    return config.model_copy(update={**small, "features": 8})


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^conv_first\.", "shallow."),
    (r"^patch_embed\.norm\.", "first_norm."),
    (r"^conv_after_body\.", "fuse."),
    (r"^(?:encode_)?layers\.(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.residual_group\.blocks\.", r"\1.layers."),
    (r"^(blocks\.\d+)\.conv\.", r"\1.close."),
    *OFFICIAL_NAMES,
)
_COMPUTED = re.compile(r"\.(attn_mask|attn\.relative_position_index)$")
_OURS = re.compile(
    r"(shallow|norm|first_norm|fuse(\.\d)?|reconstruct(\.\w+)*|blocks\.\d+\.close(\.\d)?|blocks\.\d+\.layers\.\d+\."
    r"(attention_norm|feed_forward_norm|attention\.(qkv|project)|feed_forward\.(expand|contract)))\.(weight|bias)"
    r"|blocks\.\d+\.layers\.\d+\.attention\.bias_table"
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint for any of the tasks, or one of DCPT's code.

    Returns:
        Our config, state and steps, or None where the keys are not SwinIR's. `image_range` is taken to be the
        authors' 255 where windows of 7 pixels keep the size, as for JPEG's traces, and 1 elsewhere; without
        tables of relative places, windows to be 8 wide and heads six or the next fewer that fit.
    """
    first = "residual_group.blocks.0.attn.qkv.weight"
    if f"layers.0.{first}" not in state and f"encode_layers.0.{first}" not in state:
        return None
    encoders = len({key.split(".")[1] for key in state if key.startswith("encode_layers.")})

    def continued(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) + encoders}."

    # DCPT's code keeps the second half of the blocks under names of their own.
    renames = ((r"^decode_layers(\d+)\.", continued), *_RENAMES)
    ours = renamed_state(state, renames, layers=_ends(state), computed=_COMPUTED)
    if not all(_OURS.fullmatch(key) for key in ours):
        return None  # a relative of SwinIR, such as HAT
    shown = ("window", "heads") if "blocks.0.layers.0.attention.bias_table" in ours else ()
    return Official(_config_of(state, ours), ours, shown=shown)


def _ends(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return authors' names of the layers behind the trunk, and ours."""
    if "conv_hr.weight" in state:
        ups = {f"conv_up{index + 1}": f"reconstruct.steps.{index}" for index in range(2)}
        return {
            "conv_before_upsample.0": "reconstruct.narrow", **ups, "conv_hr": "reconstruct.refine",
            "conv_last": "reconstruct.last",
        }  # fmt: skip
    if "conv_before_upsample.0.weight" in state:
        return official_subpixels(state, "reconstruct")[0]
    return {"upsample.0": "reconstruct", "conv_last": "reconstruct"}


def _enlarging(state: Mapping[str, Tensor]) -> list[str]:
    return [key.removesuffix(".weight") for key in state if re.fullmatch(r"upsample\.\d+\.weight", key)]


def _config_of(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> SwinIRConfig:
    """Read the settings off the authors' state and ours."""
    width, channels = ours["shallow.weight"].shape[:2]
    depths = depths_of(ours, groups="blocks")
    firsts = [f"blocks.{block}.layers.0." for block in range(len(depths))]
    hidden = ours[f"{firsts[0]}feed_forward.expand.weight"].shape[0]
    likely = max(heads for heads in range(1, 7) if width % heads == 0)
    known: dict[str, object] = {"attention": "plain", "heads": (likely,) * len(depths)}
    if f"{firsts[0]}attention.bias_table" in ours:
        tables = [ours[f"{first}attention.bias_table"].shape for first in firsts]
        side = (int(tables[0][0] ** 0.5) + 1) // 2
        known = {"window": side, "heads": tuple(heads for _, heads in tables)}
    ups = _enlarging(state)
    if "conv_hr.weight" in state:
        known |= {"reconstruction": "nearest", "scale": 4 if "conv_up2.weight" in state else 2}
    elif "conv_before_upsample.0.weight" in state:
        known |= {"reconstruction": "shuffle", **official_subpixels(state, "reconstruct")[1]}
    elif ups:
        scale = round((state["upsample.0.weight"].shape[0] / channels) ** 0.5)
        known |= {"reconstruction": "direct", "scale": scale}
    else:
        known |= {"reconstruction": "residual", "scale": 1}
        if known.get("window") == _JPEG["window"]:
            known["image_range"] = _JPEG["image_range"]
    if known["reconstruction"] == "nearest":
        known["features"] = state["conv_before_upsample.0.weight"].shape[0]
    values = {
        "channels": channels,
        "width": width,
        "depths": depths,
        # The hidden width is the product rounded down, which must not fall below what it is.
        "ratio": hidden / width if int(width * (hidden / width)) == hidden else (hidden + 0.5) / width,
        "qkv_bias": f"{firsts[0]}attention.qkv.bias" in ours,
        "first_norm": "first_norm.weight" in ours,
        "connection": "3conv" if "conv_after_body.0.weight" in state else "1conv",
    }
    return SwinIRConfig.parse({**values, **known}, where="a SwinIR of its authors")
