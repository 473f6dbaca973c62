"""HAT: attention in windows, attention between channels beside it, and windows that overlap.

Chen et al., CVPR 2023, arXiv:2205.04437, and arXiv:2309.05239. `forward` follows figure 4: a 3×3 convolution,
residual hybrid attention groups (RHAG), a norm and a convolution with a long skip, a reconstruction by
sub-pixels. A group holds hybrid attention blocks (HAB, eq. 3) and one of overlapping attention (OCAB,
eq. 5).

Shapes: B batch, C picture channels, N width, H W low resolution, rounded up to whole windows, P = H · W,
s scale.

The contract has no halo: which way a pixel looks depends on where it lies in the grid of windows, which
begins at the picture's corner, and attention between channels averages over the whole picture. So pictures
run whole, or in blended tiles.

Departs from the paper and its code:
- Trains without stochastic depth (authors: 0.1 in training; none in use).
- Windows are always shifted in every second block; the authors' code leaves that out, and takes smaller
  windows, where its setting `img_size` is no larger than a window.
- The authors number the relative places of overlapping windows from below zero, so that their table is read
  from its end; here it begins at the first place, and theirs is turned on loading.
- The authors' tests fill up to whole windows, mirrored at the bottom and right; here the network does, for
  any size.
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
from relume.nn.overlapping import OverlappingAttention
from relume.nn.padding import cut
from relume.nn.pieces import by_pixels
from relume.nn.restormer import ratio_of
from relume.nn.swin import (
    OFFICIAL_NAMES,
    FeedForward,
    WindowAttention,
    Windows,
    channels_last,
    closing,
    filled_to_windows,
    pictured,
    pixels_of,
    windows_of,
)  # fmt: skip
from relume.nn.upsample import SubPixels, official_subpixels

_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
_Pairs = tuple[tuple[float | None, float | None], ...]
_UNKNOWN = (None, None)
# Table 6 of the CVPR paper; HAT and HAT-S are trained on DIV2K and Flickr2K alone, HAT-L after ImageNet. Of
# HAT-S and HAT-L, those that the authors' page, its figure and the pages of later systems' code quote.
_FIGURES: dict[str, _Pairs] = {
    "hat-x2": ((38.63, 0.9630), (34.86, 0.9274), (32.62, 0.9053), (34.45, 0.9466), (40.26, 0.9809)),
    "hat-x3": ((35.07, 0.9329), (31.08, 0.8555), (29.54, 0.8167), (30.23, 0.8896), (35.53, 0.9552)),
    "hat-x4": ((33.04, 0.9056), (29.23, 0.7973), (28.00, 0.7517), (27.97, 0.8368), (32.48, 0.9292)),
    "hat-s-x4": ((32.92, None), (29.15, None), (27.97, None), (27.87, None), (32.35, None)),
    "hat-l-x2": (_UNKNOWN, _UNKNOWN, _UNKNOWN, (35.09, None), _UNKNOWN),
    "hat-l-x3": (_UNKNOWN, _UNKNOWN, _UNKNOWN, (30.92, None), (36.02, None)),
    "hat-l-x4": ((33.30, None), (29.47, None), (28.09, None), (28.60, 0.8498), (33.09, 0.9335)),
}

CARD = Card(
    name="hat",
    title="Activating More Pixels in Image Super-Resolution Transformer",
    summary=(
        "A transformer that looks at more of the picture: windows of 16 pixels that shift, a convolutional "
        "branch with attention between channels beside them, and windows that overlap. Pre-trained on the "
        "same task with many pictures, the paper claims the best figures of its time by far."
    ),
    when=(
        "When quality is all and a GPU with memory is at hand: HAT-L claims the most of all here. HAT-S "
        "costs about what SwinIR costs and claims more."
    ),
    venue="CVPR 2023",
    task=Task.SUPER_RESOLUTION,
    arxiv="2205.04437",
    code="https://github.com/XPixelGroup/HAT",
    claims=claims_of(_FIGURES, _SETS),
)


class HATConfig(Config):
    """Settings of a HAT; the defaults are the paper's middle size.

    Attributes:
        scale: s.
        channels: C of the pictures.
        width: N ("embed_dim").
        depths: hybrid attention blocks in each group.
        heads: of attention, in each group ("num_heads"); N is a multiple of each.
        window: side of a window, pixels.
        overlap: pixels by which the windows that are looked at reach beyond their own, on each side; half of
            what the authors' "overlap_ratio" makes of the side.
        ratio: hidden width of the feed-forward networks over N ("mlp_ratio").
        qkv_bias: whether queries, keys and values have a bias.
        first_norm: whether a norm stands before the first group ("patch_norm").
        compress: N over the width between the convolutions of the branch with channel attention (β,
            "compress_ratio").
        squeeze: N over the width inside channel attention ("squeeze_factor").
        channel_weight: of that branch (α, "conv_scale").
        connection: what closes each group and the trunk: "1conv" or "identity" ("resi_connection").
        features: channels in the reconstruction.
        image_range: factor on the centred input ("img_range").
    """

    scale: Literal[1, 2, 3, 4, 8] = 4
    channels: PositiveInt = 3
    width: PositiveInt = 180
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (6,) * 6
    heads: tuple[PositiveInt, ...] = (6,) * 6
    window: Annotated[int, Field(ge=2)] = 16
    overlap: Annotated[int, Field(ge=0)] = 4
    ratio: PositiveFloat = 2.0
    qkv_bias: bool = True
    first_norm: bool = True
    compress: PositiveInt = 3
    squeeze: PositiveInt = 30
    channel_weight: PositiveFloat = 0.01
    connection: Literal["1conv", "identity"] = "1conv"
    features: PositiveInt = 64
    image_range: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _fits(self) -> HATConfig:
        if len(self.heads) != len(self.depths):
            raise ValueError(f"heads names {len(self.heads)} groups, depths {len(self.depths)}; name as many")
        for heads in self.heads:
            if self.width % heads:
                raise ValueError(f"width {self.width} cannot be shared by {heads} heads; choose a multiple")
        for name in ("compress", "squeeze"):
            if getattr(self, name) > self.width:
                raise ValueError(f"{name} {getattr(self, name)} leaves nothing of width {self.width}")
        return self


class ChannelBranch(nn.Module):
    """Two convolutions, narrow in between, and attention between channels (CAB)."""

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        width = config.width
        self.narrow = nn.Conv2d(width, width // config.compress, 3, padding=1)
        self.widen = nn.Conv2d(width // config.compress, width, 3, padding=1)
        self.squeeze = nn.Conv2d(width, width // config.squeeze, 1)
        self.excite = nn.Conv2d(width // config.squeeze, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(F.gelu(self.narrow(x)))
        weights = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))  # B N 1 1
        return x * torch.sigmoid(weights)


class HybridBlock(nn.Module):
    """Attention in windows beside the channels' branch, then a feed-forward network (HAB, eq. 3)."""

    def __init__(self, heads: int, config: HATConfig) -> None:
        super().__init__()
        self.channel_weight = config.channel_weight
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = WindowAttention(config.width, heads, config.window, qkv_bias=config.qkv_bias)
        self.channel_branch = ChannelBranch(config)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config.width, ratio=config.ratio)

    def forward(self, x: Tensor, windows: Windows, like: Tensor) -> Tensor:
        """Map pixels `B P N` of a picture of the size of `like` to the same."""
        normed = self.attention_norm(x)
        channels = pixels_of(self.channel_branch(pictured(normed, like)))
        attended = windows.over(normed, lambda some: self.attention(some.cut(normed), some))
        return by_pixels(self._fed, x, attended, channels)

    def _fed(self, x: Tensor, attended: Tensor, channels: Tensor) -> Tensor:
        x = torch.add(x + attended, channels, alpha=self.channel_weight)
        fed: Tensor = self.feed_forward(self.feed_forward_norm(x))
        return x + fed


class OverlappingBlock(nn.Module):
    """Attention to windows that overlap, then a feed-forward network (OCAB)."""

    def __init__(self, heads: int, config: HATConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = OverlappingAttention(
            config.width, heads, config.window, overlap=config.overlap, qkv_bias=config.qkv_bias
        )
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config.width, ratio=config.ratio)

    def forward(self, x: Tensor, own: Windows, wider: Windows) -> Tensor:
        """Map pixels `B P N` to the same."""
        x = x + self.attention(self.attention_norm(x), own, wider)
        return by_pixels(lambda some: some + self.feed_forward(self.feed_forward_norm(some)), x)


class HybridGroup(nn.Module):
    """Hybrid blocks, every second one with shifted windows, an overlapping one, and a convolution (RHAG)."""

    def __init__(self, depth: int, heads: int, config: HATConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HybridBlock(heads, config) for _ in range(depth))
        self.overlap = OverlappingBlock(heads, config)
        self.close = closing(config.width, config.connection)

    def forward(self, x: Tensor, windows: tuple[Windows, Windows], wider: Windows) -> Tensor:
        """Map `B N H W` to the same, in plain and shifted windows by turns."""
        deep = pixels_of(x)
        for index, layer in enumerate(self.layers):
            deep = layer(deep, windows[index % 2], x)
        deep = self.overlap(deep, windows[0], wider)
        return self.close(pictured(deep, x)) + x


class HAT(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: HATConfig) -> None:
        super().__init__()
        self.config: HATConfig = config
        mean = RGB_MEAN if config.channels == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.mean: Tensor
        self.shallow = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.first_norm = nn.LayerNorm(config.width) if config.first_norm else nn.Identity()
        self.groups = nn.ModuleList(
            HybridGroup(depth, heads, config)
            for depth, heads in zip(config.depths, config.heads, strict=True)
        )
        self.norm = nn.LayerNorm(config.width)
        self.fuse = closing(config.width, config.connection)
        self.reconstruct = SubPixels(
            config.width, features=config.features, channels=config.channels, scale=config.scale
        )

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; no halo, see the file's head."""
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        low = x
        x = (filled_to_windows(low, self.config.window) - self.mean) * self.config.image_range
        shallow = self.shallow(channels_last(x))  # B N H W
        output = self.reconstruct(self.fuse(self._trunk(shallow)) + shallow)
        return cut(output / self.config.image_range + self.mean, low, scale=self.config.scale)

    def _trunk(self, shallow: Tensor) -> Tensor:
        (height, width), side = shallow.shape[2:], self.config.window
        plain = windows_of(height, width, side, like=shallow)
        shifted = windows_of(height, width, side, shift=side // 2, like=shallow)
        wider = windows_of(height, width, side, overlap=self.config.overlap, like=shallow)
        x = pictured(self.first_norm(pixels_of(shallow)), shallow)
        for group in self.groups:
            x = group(x, (plain, shifted), wider)
        return pictured(self.norm(pixels_of(x)), x)


_SMALL: dict[str, object] = {"width": 144, "compress": 24, "squeeze": 24}
_LARGE: dict[str, object] = {"depths": (6,) * 12, "heads": (6,) * 12}

VARIANTS = {
    name: Variant(HATConfig.parse(settings, where=name), parameters)
    for name, settings, parameters in (
        ("hat-x2", {"scale": 2}, 20_624_795),
        ("hat-x3", {"scale": 3}, 20_809_435),
        ("hat-x4", {"scale": 4}, 20_772_507),
        ("hat-s-x2", {"scale": 2, **_SMALL}, 9_473_471),
        ("hat-s-x3", {"scale": 3, **_SMALL}, 9_658_111),
        ("hat-s-x4", {"scale": 4, **_SMALL}, 9_621_183),
        ("hat-l-x2", {"scale": 2, **_LARGE}, 40_698_863),
        ("hat-l-x3", {"scale": 3, **_LARGE}, 40_883_503),
        ("hat-l-x4", {"scale": 4, **_LARGE}, 40_846_575),
    )
}

NETWORK = HAT
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"img_range": "image_range", "conv_scale": "channel_weight"}
"""Authors' arguments that their checkpoints do not show."""


def tiny(config: HATConfig) -> HATConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    small = {"width": 8, "depths": (2,), "heads": (2,), "window": 4, "overlap": 1, "features": 8}
    return config.model_copy(update={**small, "compress": 2, "squeeze": 1})


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^conv_first\.", "shallow."),
    (r"^patch_embed\.norm\.", "first_norm."),
    (r"^conv_after_body\.", "fuse."),
    (r"^layers\.(\d+)\.residual_group\.blocks\.", r"groups.\1.layers."),
    (r"^layers\.(\d+)\.residual_group\.overlap_attn\.(relative|qkv|proj)", r"groups.\1.overlap.attn.\2"),
    (r"^layers\.(\d+)\.residual_group\.overlap_attn\.", r"groups.\1.overlap."),
    (r"^layers\.(\d+)\.conv\.", r"groups.\1.close."),
    (r"\.conv_block\.cab\.0\.", ".channel_branch.narrow."),
    (r"\.conv_block\.cab\.2\.", ".channel_branch.widen."),
    (r"\.conv_block\.cab\.3\.attention\.1\.", ".channel_branch.squeeze."),
    (r"\.conv_block\.cab\.3\.attention\.3\.", ".channel_branch.excite."),
    *OFFICIAL_NAMES,
)
_COMPUTED = re.compile(r"(^|\.)(attn_mask|relative_position_index(_\w+)?)$")


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint.

    Returns:
        Our config, state and steps, or None where the keys are not HAT's. `image_range` is taken to be 1 and
        `channel_weight` the paper's 0.01.
    """
    marks = ("blocks.0.conv_block.cab.3.attention.1.weight", "overlap_attn.relative_position_bias_table")
    if not all(f"layers.0.residual_group.{mark}" in state for mark in marks):
        return None
    if "conv_before_upsample.0.weight" not in state:
        return None
    ends, known = official_subpixels(state, "reconstruct")
    ours = renamed_state(state, _RENAMES, layers=ends, computed=_COMPUTED)
    config = _config_of(ours, known, identity="conv_after_body.weight" not in state)
    for name in [name for name in ours if name.endswith(".overlap.attention.bias_table")]:
        ours[name] = _from_the_first_place(ours[name], config)
    return Official(config, ours)


def _config_of(ours: Mapping[str, Tensor], known: Mapping[str, int], *, identity: bool) -> HATConfig:
    """Read the settings off the state, beside those of the reconstruction."""
    width, channels = ours["shallow.weight"].shape[:2]
    depths = depths_of(ours)
    first = "groups.0.layers.0."
    tables = [ours[f"groups.{group}.layers.0.attention.bias_table"].shape for group in range(len(depths))]
    side = (round(tables[0][0] ** 0.5) + 1) // 2
    # As many rows as there are relative places of a side and one with its frames.
    wider = round(ours["groups.0.overlap.attention.bias_table"].shape[0] ** 0.5) + 1 - side
    values = {
        "channels": channels,
        "width": width,
        "depths": depths,
        "heads": tuple(heads for _, heads in tables),
        "window": side,
        "overlap": (wider - side) // 2,
        "ratio": ratio_of([ours[f"{first}feed_forward.expand.weight"].shape[::-1]]),
        "qkv_bias": f"{first}attention.qkv.bias" in ours,
        "first_norm": "first_norm.weight" in ours,
        "compress": width // ours[f"{first}channel_branch.narrow.weight"].shape[0],
        "squeeze": width // ours[f"{first}channel_branch.squeeze.weight"].shape[0],
        "connection": "identity" if identity else "1conv",
    }
    return HATConfig.parse({**values, **known}, where="a HAT of its authors")


def _from_the_first_place(table: Tensor, config: HATConfig) -> Tensor:
    """Turn the authors' table of relative places, which they read from its end, see the file's head."""
    wider = config.window + 2 * config.overlap
    return table.roll((wider - 2) * (config.window + wider), 0)
