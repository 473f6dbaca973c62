"""CRAFT: global features from rectangular windows, refined by high frequencies from convolutions.

Li et al., ICCV 2023, arXiv:2308.05022. `forward` follows figure 4: a 3×3 convolution, residual cross-
refinement fusion groups (RCRFG), a norm and a convolution with a long skip, and a pixel shuffle. A group's
blocks (CRFB) hold two of shifted rectangle window attention (SRWAB), one that enhances high frequencies
(HFERB), and a hybrid fusion block (HFB), in which the high frequencies ask and the global features answer.

Shapes: B batch, C picture channels, N width, H W low resolution, rounded up to whole windows, P = H · W,
s scale.

The contract has no halo: which way a pixel looks depends on where it lies in the grid of windows, shifted
windows see the opposite border, and the fusion's attention sums over the whole picture. So pictures run
whole, or in blended tiles.

Departs from the paper and its code:
- As in the authors' code, shifted windows have no mask: what is shifted over the border attends to the
  opposite border, which the paper does not say.
- The bias of relative places, a small network's, is the same everywhere up to N = 63, where that network is
  one channel wide (`nn.rectangles.PlaceBias`): in the paper's sizes windows know no places. It is kept so,
  as the authors' weights were trained.
- The authors' tests fill up to multiples of the longer side, mirrored at the bottom and right; here the
  network does, for any size. (Their script for single pictures always adds a window more.)
- A checkpoint's tables of offsets are not read: older ones have those of lying and standing windows
  exchanged, which makes no difference in the paper's sizes.
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
from relume.core.variants import Official, Replacement, Variant, depths_of, renamed_state
from relume.nn.colour import RGB_MEAN
from relume.nn.network import Network
from relume.nn.norms import LayerNorm2d
from relume.nn.padding import cut
from relume.nn.pieces import PIXELS, by_pixels, by_rows
from relume.nn.pixelwise import PixelConv2d
from relume.nn.rectangles import OFFICIAL_NAMES, Pair, RectangleAttention, rectangles_of, sides_of
from relume.nn.restormer import FeedForward as GatedFeedForward
from relume.nn.restormer import attend_channels, ratio_of
from relume.nn.swin import FeedForward, channels_last, closing, filled_to_windows, pictured, pixels_of
from relume.nn.upsample import respread_subpixels

_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
# Table 1, trained on DIV2K.
_FIGURES = {
    "craft-x2": ((38.23, 0.9615), (33.92, 0.9211), (32.33, 0.9016), (32.86, 0.9343), (39.39, 0.9786)),
    "craft-x3": ((34.71, 0.9295), (30.61, 0.8469), (29.24, 0.8093), (28.77, 0.8635), (34.29, 0.9491)),
    "craft-x4": ((32.52, 0.8989), (28.85, 0.7872), (27.72, 0.7418), (26.56, 0.7995), (31.18, 0.9168)),
}

CARD = Card(
    name="craft",
    title=(
        "Feature Modulation Transformer: Cross-Refinement of Global Representation via High-Frequency Prior "
        "for Image Super-Resolution"
    ),
    summary=(
        "A light transformer with rectangular windows. As attention favours low frequencies, a convolutional "
        "branch brings out the high ones, and attention between channels joins the two. The paper claims up "
        "to 0.29 dB more than others of its size."
    ),
    when=(
        "Where a light transformer is wanted: it claims more than SwinIR-light with a sixth fewer parameters."
    ),
    venue="ICCV 2023",
    task=Task.SUPER_RESOLUTION,
    arxiv="2308.05022",
    code="https://github.com/AVC2-UESTC/CRAFT-SR",
    claims=claims_of(_FIGURES, _SETS),
)


class CRAFTConfig(Config):
    """Settings of a CRAFT; the defaults are the paper's.

    Attributes:
        scale: s.
        channels: C of the pictures.
        width: N ("embed_dim").
        depths: blocks in each group.
        heads: of attention, in each group, half of them for lying windows and half for standing ones
            ("num_heads"); N is a multiple of each.
        sides: height and width of a lying window, pixels ("split_size_0", "split_size_1"); the longer is a
            multiple of the shorter.
        ratio: hidden width of the feed-forward networks over N ("mlp_ratio").
        connection: what closes the trunk: "1conv" or "identity" ("resi_connection").
        image_range: factor on the centred input ("img_range").
    """

    scale: Literal[1, 2, 3, 4, 8] = 4
    channels: PositiveInt = 3
    width: Annotated[int, Field(ge=32)] = 48
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2,) * 4
    heads: tuple[PositiveInt, ...] = (6,) * 4
    sides: tuple[PositiveInt, PositiveInt] = (4, 16)
    ratio: PositiveFloat = 2.0
    connection: Literal["1conv", "identity"] = "1conv"
    image_range: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _fits(self) -> CRAFTConfig:
        if len(self.heads) != len(self.depths):
            raise ValueError(f"heads names {len(self.heads)} groups, depths {len(self.depths)}; name as many")
        for heads in self.heads:
            if heads % 2 or self.width % heads:
                raise ValueError(
                    f"width {self.width} cannot be shared by {heads} heads in two halves; choose an even "
                    "number of which it is a multiple"
                )
        if max(self.sides) % min(self.sides):
            raise ValueError(f"sides {self.sides}: the longer is to be a multiple of the shorter")
        return self


class RectangleBlock(nn.Module):
    """Attention in rectangles, then a feed-forward network, each behind a norm and with a skip (SRWAB)."""

    def __init__(self, heads: int, config: CRAFTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = RectangleAttention(config.width, heads, config.sides)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config.width, ratio=config.ratio)

    def forward(self, x: Tensor, pair: Pair, like: Tensor) -> Tensor:
        """Map pixels `B P N` of a picture of the size of `like` to the same."""
        x = x + self.attention(x, pair, like, norm=self.attention_norm)
        return by_pixels(lambda some: some + self.feed_forward(self.feed_forward_norm(some)), x)


class HighFrequencyBlock(nn.Module):
    """Half of the channels by a convolution, half by their local maxima, with a skip (HFERB)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.local = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.sharp = PixelConv2d(width // 2, width // 2)
        self.fuse = PixelConv2d(width, width)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        local = F.gelu(self.local(first))
        sharp = F.gelu(self.sharp(F.max_pool2d(second, 3, stride=1, padding=1)))
        fused: Tensor = self.fuse(torch.cat([local, sharp], 1))
        return x + fused


class CrossAttention(nn.Module):
    """Attention between channels, in which one picture of features asks and another answers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.ask = PixelConv2d(width, width, bias=False)
        self.spread_ask = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.answer = PixelConv2d(width, 2 * width, bias=False)
        self.spread_answer = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width, bias=False)
        self.project = PixelConv2d(width, width, bias=False)

    def forward(self, asking: Tensor, answering: Tensor, *, norm: LayerNorm2d) -> Tensor:
        """Map pictures of features, `B N H W` both, the second behind the norm, to such a picture."""
        # In one expression, so that nothing stays longer than it is needed.
        mixed: Tensor = self.project(
            self._mixed(self.spread_ask(self.ask(asking)), self.spread_answer(self.answer(norm(answering))))
        )
        return mixed

    def _mixed(self, query: Tensor, answers: Tensor) -> Tensor:
        key, value = answers.chunk(2, 1)
        return attend_channels(query, key, value, self.temperature)


class FusionBlock(nn.Module):
    """Global features refined by high frequencies, then a gated feed-forward network (HFB)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(width, eps=1e-5)
        self.attention = CrossAttention(width, heads)
        self.channel_norm = LayerNorm2d(width, eps=1e-5)
        self.feed_forward = GatedFeedForward(width, ratio=2.66)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Return the refined features, `B N H W` as both inputs, that `fed` is to be given.

        Not one function, as the inputs would stay until its end.
        """
        return low + self.attention(high, low, norm=self.norm)

    def fed(self, x: Tensor) -> Tensor:
        """Map refined features, `B N H W`, to the same."""
        # Small pieces, as the hidden features are five times as wide.
        return by_rows(
            lambda some: some + self.feed_forward(self.channel_norm(some)), x, halo=1, pixels=PIXELS // 2
        )


class CrossRefinementBlock(nn.Module):
    """Two rectangle blocks, the second with shifted windows, fused with high frequencies (CRFB)."""

    def __init__(self, heads: int, config: CRAFTConfig) -> None:
        super().__init__()
        self.rectangles = nn.ModuleList(RectangleBlock(heads, config) for _ in range(2))
        self.high = HighFrequencyBlock(config.width)
        self.fuse = FusionBlock(config.width, heads)

    def forward(self, x: Tensor, pairs: tuple[Pair, Pair]) -> Tensor:
        low = pixels_of(x)
        for block, pair in zip(self.rectangles, pairs, strict=True):
            low = block(low, pair, x)
        low = self.fuse(pictured(low, x), self.high(x))
        return self.fuse.fed(low)


class CrossRefinementGroup(nn.Module):
    """Cross-refinement blocks and a convolution, with a skip (RCRFG)."""

    def __init__(self, depth: int, heads: int, config: CRAFTConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossRefinementBlock(heads, config) for _ in range(depth))
        self.close = nn.Conv2d(config.width, config.width, 3, padding=1)

    def forward(self, x: Tensor, pairs: tuple[Pair, Pair]) -> Tensor:
        """Map `B N H W` to the same, with plain and shifted windows."""
        deep = x
        for layer in self.layers:
            deep = layer(deep, pairs)
        return self.close(deep) + x


class CRAFT(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: CRAFTConfig) -> None:
        super().__init__()
        self.config: CRAFTConfig = config
        mean = RGB_MEAN if config.channels == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.mean: Tensor
        self.shallow = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.groups = nn.ModuleList(
            CrossRefinementGroup(depth, heads, config)
            for depth, heads in zip(config.depths, config.heads, strict=True)
        )
        self.norm = LayerNorm2d(config.width, eps=1e-5)
        self.fuse = closing(config.width, config.connection)
        self.reconstruct = nn.Conv2d(config.width, config.channels * config.scale**2, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; no halo, see the file's head."""
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        low, scale = x, self.config.scale
        x = (filled_to_windows(low, max(self.config.sides)) - self.mean) * self.config.image_range
        shallow = self.shallow(channels_last(x))  # B N H W
        deep = self.fuse(self._trunk(shallow)) + shallow
        output = F.pixel_shuffle(self.reconstruct(deep), scale)
        return cut(output / self.config.image_range + self.mean, low, scale=scale)

    def _trunk(self, shallow: Tensor) -> Tensor:
        height, width = shallow.shape[2:]
        plain, shifted = (
            rectangles_of(
                height, width, self.config.sides, shifted=shifted, masked=False, filled=False, like=shallow
            )
            for shifted in (False, True)
        )
        x = shallow
        for group in self.groups:
            x = group(x, (plain, shifted))
        normed: Tensor = self.norm(x)
        return normed

    def start_from(self, source: Network) -> list[str]:
        """Take over another CRAFT's trunk and its nearest sub-pixels."""
        left = super().start_from(source)
        if isinstance(source, CRAFT) and "reconstruct.weight" in left:
            old, new = source.config.scale, self.config.scale
            if respread_subpixels(source.reconstruct, self.reconstruct, old=old, new=new):
                left = [name for name in left if not name.startswith("reconstruct.")]
        return left


VARIANTS = {
    "craft-x2": Variant(CRAFTConfig(scale=2), parameters=737_756),
    "craft-x3": Variant(CRAFTConfig(scale=3), parameters=744_251),
    "craft-x4": Variant(CRAFTConfig(scale=4), parameters=753_344),
}

NETWORK = CRAFT
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"img_range": "image_range"}
"""Authors' arguments that their checkpoints do not show."""

CANCELLED = (".layers.2.bias",)
"""Ends of the names of parameters that a softmax cancels: a constant added to all of a head's logits."""


def tiny(config: CRAFTConfig) -> CRAFTConfig:
    """Return a small relative of a variant, quick enough to test everything on.

    It is wider than the paper's, as below 96 the bias of relative places has nothing to learn.
    """
    return config.model_copy(
        update={"width": 96, "depths": (1,), "heads": (2,), "sides": (2, 4), "ratio": 0.5}
    )


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES: tuple[tuple[str, Replacement], ...] = (
    (r"^conv_first\.", "shallow."),
    (r"^norm\.body\.", "norm."),
    (r"^conv_after_body\.", "fuse."),
    (r"^upsample\.0\.", "reconstruct."),
    (r"^layers\.(\d+)\.conv\.", r"groups.\1.close."),
    (
        # Rectangle blocks are counted through a group, two to each of ours.
        r"^layers\.(\d+)\.residual_group\.srwa_blocks\.(\d+)\.",
        lambda match: f"groups.{match[1]}.layers.{int(match[2]) // 2}.rectangles.{int(match[2]) % 2}.",
    ),
    (r"^layers\.(\d+)\.residual_group\.hfer_blocks\.(\d+)\.", r"groups.\1.layers.\2.high."),
    (r"^layers\.(\d+)\.residual_group\.hf_blocks\.(\d+)\.", r"groups.\1.layers.\2.fuse."),
    (r"\.high\.conv\.", ".high.local."),
    (r"\.high\.fc\.", ".high.sharp."),
    (r"\.high\.last_fc\.", ".high.fuse."),
    (r"\.fuse\.norm1\.body\.", ".fuse.norm."),
    (r"\.fuse\.norm2\.body\.", ".fuse.channel_norm."),
    (r"\.fuse\.attn\.temperature$", ".fuse.attention.temperature"),
    (r"\.fuse\.attn\.q\.", ".fuse.attention.ask."),
    (r"\.fuse\.attn\.q_dwconv\.", ".fuse.attention.spread_ask."),
    (r"\.fuse\.attn\.kv\.", ".fuse.attention.answer."),
    (r"\.fuse\.attn\.kv_dwconv\.", ".fuse.attention.spread_answer."),
    (r"\.fuse\.attn\.project_out\.", ".fuse.attention.project."),
    (r"\.ffn\.project_in\.", ".feed_forward.expand."),
    (r"\.ffn\.dwconv\.", ".feed_forward.spread."),
    (r"\.ffn\.project_out\.", ".feed_forward.project."),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".feed_forward_norm."),
    (r"(\.rectangles\.\d)\.qkv\.", r"\1.attention.qkv."),
    (r"(\.rectangles\.\d)\.proj\.", r"\1.attention.project."),
    (r"(\.rectangles\.\d)\.get_v\.", r"\1.attention.near."),
    (r"(\.rectangles\.\d)\.attns\.", r"\1.attention.attns."),
    *OFFICIAL_NAMES,
    (r"\.mlp\.fc1\.", ".feed_forward.expand."),
    (r"\.mlp\.fc2\.", ".feed_forward.contract."),
)
_COMPUTED = re.compile(r"^(relative_position_index|biases)_[hv]$")


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint.

    Returns: Our config, state and steps, or None where the keys are not CRAFT's. `image_range` is taken to
    be 1, and windows to be the paper's where their tables are missing.
    """
    first = "layers.0.residual_group"
    marks = ("srwa_blocks.0.attns.0.pos.pos_proj.weight", "hfer_blocks.0.last_fc.weight")
    if not all(f"{first}.{mark}" in state for mark in marks) or "upsample.0.weight" not in state:
        return None
    ours = renamed_state(state, _RENAMES, computed=_COMPUTED)
    width, channels = ours["shallow.weight"].shape[:2]
    depths = depths_of(ours)
    heads = [len(ours[f"groups.{group}.layers.0.fuse.attention.temperature"]) for group in range(len(depths))]
    table = state.get("relative_position_index_h")
    expand = ours["groups.0.layers.0.rectangles.0.feed_forward.expand.weight"]
    values = {
        "scale": round((ours["reconstruct.weight"].shape[0] / channels) ** 0.5),
        "channels": channels,
        "width": width,
        "depths": depths,
        "heads": tuple(heads),
        "sides": CRAFTConfig().sides if table is None else sides_of(table),
        "ratio": ratio_of([expand.shape[::-1]]),
        "connection": "1conv" if "fuse.weight" in ours else "identity",
    }
    return Official(CRAFTConfig.parse(values, where="a CRAFT of its authors"), ours)
