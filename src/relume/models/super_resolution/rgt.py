"""RGT: attention in rectangular windows by turns with attention to a small picture of the whole picture.

Chen et al., ICLR 2024, arXiv:2303.06373. `forward` follows figure 2: a 3×3 convolution, residual groups, a
norm and a convolution with a long skip, and a reconstruction by sub-pixels. In a group, blocks of local
attention (L-SA) and of recursive-generalization attention (RG-SA, section 3.2) take turns; each adds its
input once more, weighted for each channel (HAI, eq. 6).

Shapes: B batch, C picture channels, N width, R = r · N reduced width, H W low resolution, P = H · W, T pixels
of the picture that the recursion leaves, h heads, s scale.

The contract has no halo: recursive attention looks at the whole picture. So pictures run whole, or in blended
tiles.

Departs from the paper and its code:
- Trains without stochastic depth (authors: 0.1 in training; none in use).
- How often the recursion shrinks by four follows the authors' rule for use in training too. Theirs for
  training gives the same for their patches of 64 pixels, but less for smaller ones, which use does not see.
- It never shrinks to nothing, as the authors' code does, and then fails, where one side is far longer than
  the other; nor does it fail on sides below 16 pixels: those are mirrored to 32.
- The bias of relative places, a small network's, is the same everywhere up to N = 63, which no variant is
  (`nn.rectangles.PlaceBias`).
- What windows hold beyond the picture is zeros, and they are looked at, as in the authors' code.
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
from relume.nn.padding import cut, mirrored_from_small
from relume.nn.pieces import by_rows
from relume.nn.rectangles import OFFICIAL_NAMES, Pair, RectangleAttention, rectangles_of, sides_of
from relume.nn.restormer import ratio_of
from relume.nn.swin import attend, channels_last, closing, linear, pictured, pixels_of
from relume.nn.upsample import SubPixels, official_subpixels

_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
# Table 2, trained on DIV2K and Flickr2K, without self-ensemble.
_FIGURES = {
    "rgt-x2": ((38.59, 0.9628), (34.83, 0.9272), (32.62, 0.9050), (34.47, 0.9467), (40.34, 0.9808)),
    "rgt-x3": ((35.15, 0.9329), (31.13, 0.8550), (29.55, 0.8165), (30.28, 0.8899), (35.55, 0.9553)),
    "rgt-x4": ((33.12, 0.9060), (29.23, 0.7972), (28.00, 0.7513), (27.98, 0.8369), (32.50, 0.9291)),
    "rgt-s-x2": ((38.56, 0.9627), (34.77, 0.9270), (32.59, 0.9050), (34.32, 0.9457), (40.18, 0.9805)),
    "rgt-s-x3": ((35.11, 0.9328), (31.05, 0.8548), (29.53, 0.8164), (30.18, 0.8884), (35.39, 0.9548)),
    "rgt-s-x4": ((32.98, 0.9047), (29.18, 0.7966), (27.98, 0.7509), (27.89, 0.8347), (32.38, 0.9281)),
}

CARD = Card(
    name="rgt",
    title="Recursive Generalization Transformer for Image Super-Resolution",
    summary=(
        "A transformer that sees the whole picture at little cost: a convolution shrinks the features by "
        "four again and again to a small picture that all pixels look at, by turns with attention in "
        "rectangular windows. The paper claims better figures than others of its size."
    ),
    when="When quality is all: it claims as much as HAT with two thirds of its parameters.",
    venue="ICLR 2024",
    task=Task.SUPER_RESOLUTION,
    arxiv="2303.06373",
    code="https://github.com/zhengchen1999/RGT",
    claims=claims_of(_FIGURES, _SETS),
)

_LEAST = 16
"""Pixels of a side that two reductions by four leave something of."""


class RGTConfig(Config):
    """Settings of an RGT; the defaults are the paper's larger size.

    Attributes:
        scale: s.
        channels: C of the pictures.
        width: N ("embed_dim").
        depths: blocks in each group ("depth").
        heads: of attention, in each group ("num_heads"); even, and N and R are multiples of each.
        sides: height and width of a lying window, pixels ("split_size").
        ratio: hidden width of the feed-forward networks over N, before they gate it ("mlp_ratio").
        reduced: R over N, of queries and keys in recursive attention (c_r, "c_ratio").
        qkv_bias: whether queries, keys and values have a bias.
        connection: what closes each group and the trunk: "1conv", or "3conv" with a quarter of the width
            between them ("resi_connection").
        features: channels in the reconstruction.
        image_range: factor on the centred input ("img_range").
    """

    scale: Literal[1, 2, 3, 4, 8] = 4
    channels: PositiveInt = 3
    width: Annotated[int, Field(ge=32)] = 180
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (6,) * 8
    heads: tuple[PositiveInt, ...] = (6,) * 8
    sides: tuple[PositiveInt, PositiveInt] = (8, 32)
    ratio: PositiveFloat = 2.0
    reduced: Annotated[float, Field(gt=0, le=1)] = 0.5
    qkv_bias: bool = True
    connection: Literal["1conv", "3conv"] = "1conv"
    features: PositiveInt = 64
    image_range: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _fits(self) -> RGTConfig:
        if len(self.heads) != len(self.depths):
            raise ValueError(f"heads names {len(self.heads)} groups, depths {len(self.depths)}; name as many")
        for heads in self.heads:
            if heads % 2 or self.width % heads or int(self.width * self.reduced) % heads:
                raise ValueError(
                    f"width {self.width}, and {self.reduced:g} of it, cannot be shared by {heads} heads in "
                    "two halves; choose an even number of which both are multiples"
                )
        if int(self.width * self.ratio) % 2:
            raise ValueError(
                f"ratio {self.ratio:g} gives {int(self.width * self.ratio)} channels, not halves"
            )
        return self


class GatedFeedForward(nn.Module):
    """Feed-forward network, one half of which weighs the other by a depthwise look around."""

    def __init__(self, width: int, *, ratio: float) -> None:
        super().__init__()
        hidden = int(width * ratio) // 2
        self.expand = linear(width, 2 * hidden)
        self.norm = nn.LayerNorm(hidden)
        self.spread = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = linear(hidden, width)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Map pixels `B P N` of a picture of the size of `like` to the same."""
        value, gate = F.gelu(self.expand(x)).chunk(2, -1)
        gate = pixels_of(self.spread(pictured(self.norm(gate), like)))
        contracted: Tensor = self.contract(value * gate)
        return contracted


def reductions(height: int, width: int) -> int:
    """Return how often a picture is shrunk by four: twice, or more where it is large."""
    wanted = max(2, *(_log4(side // _LEAST) for side in (height, width)))
    return min(wanted, _log4(min(height, width)))


def _log4(number: int) -> int:
    return (number.bit_length() - 1) // 2 if number else 0


class RecursiveAttention(nn.Module):
    """Attention of all pixels to those of a picture shrunk by one convolution, again and again (RG-SA)."""

    def __init__(self, heads: int, config: RGTConfig) -> None:
        super().__init__()
        width, reduced = config.width, int(config.width * config.reduced)
        self.heads = heads
        self.scale = float(width // heads * config.reduced) ** -0.5
        self.reduce = nn.Conv2d(width, width, 4, stride=4, groups=width)
        self.spread = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.narrow = nn.Conv2d(width, reduced, 1)
        self.norm = nn.LayerNorm(reduced)
        self.query = linear(width, reduced, bias=config.qkv_bias)
        self.key = linear(reduced, reduced, bias=config.qkv_bias)
        self.value = linear(reduced, width, bias=config.qkv_bias)
        self.near = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.project = linear(width, width)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Map pixels `B P N` of a picture of the size of `like` to the same."""
        small = pictured(x, like)
        for _ in range(reductions(*like.shape[2:])):
            small = self.reduce(small)
        summary = F.gelu(self.norm(pixels_of(self.narrow(self.spread(small)))))  # B T R
        value = self.value(summary)  # B T N
        value = value + pixels_of(self.near(pictured(value, small)))
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)[:, None]
            for part in (self.query(x), self.key(summary), value)
        )  # B 1 h P R/h, B 1 h T R/h, B 1 h T N/h
        mixed = attend(query, key, value, scale=self.scale)[:, 0]
        projected: Tensor = self.project(mixed.transpose(1, 2).flatten(2))
        return projected


def _fed(block: LocalBlock | RecursiveBlock, x: Tensor, attended: Tensor, like: Tensor) -> Tensor:
    """Return what follows attention in a block, which is given x, pixels `B P N` both."""

    def fed(x: Tensor, attended: Tensor) -> Tensor:
        pixels = pixels_of(attended)
        added = block.feed_forward(block.feed_forward_norm(pixels), x)
        return pictured(torch.addcmul(pixels + added, pixels_of(x), block.again), x)

    return pixels_of(by_rows(fed, pictured(x, like), pictured(attended, like), halo=1))


class LocalBlock(nn.Module):
    """Attention in rectangles, then a gated feed-forward network; the input comes in once more at the end."""

    def __init__(self, heads: int, config: RGTConfig) -> None:
        super().__init__()
        self.again = nn.Parameter(torch.full((config.width,), 1e-4))
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = RectangleAttention(config.width, heads, config.sides, qkv_bias=config.qkv_bias)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = GatedFeedForward(config.width, ratio=config.ratio)

    def forward(self, x: Tensor, pair: Pair, like: Tensor) -> Tensor:
        """Map pixels `B P N` of a picture of the size of `like` to the same."""
        attended = x + self.attention(x, pair, like, norm=self.attention_norm)
        return _fed(self, x, attended, like)


class RecursiveBlock(nn.Module):
    """The same with recursive attention."""

    def __init__(self, heads: int, config: RGTConfig) -> None:
        super().__init__()
        self.again = nn.Parameter(torch.full((config.width,), 1e-4))
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = RecursiveAttention(heads, config)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = GatedFeedForward(config.width, ratio=config.ratio)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Map pixels `B P N` of a picture of the size of `like` to the same."""
        attended = x + self.attention(self.attention_norm(x), like)
        return _fed(self, x, attended, like)


class ResidualGroup(nn.Module):
    """Local and recursive blocks by turns and a convolution, with a skip.

    Every second local block has shifted windows: the second one on in even groups, the first one on in odd.
    """

    def __init__(self, group: int, config: RGTConfig) -> None:
        super().__init__()
        heads = config.heads[group]
        self.offset = 1 - group % 2
        self.layers = nn.ModuleList(
            RecursiveBlock(heads, config) if index % 2 else LocalBlock(heads, config)
            for index in range(config.depths[group])
        )
        self.close = closing(config.width, config.connection)

    def forward(self, x: Tensor, pairs: tuple[Pair, Pair]) -> Tensor:
        """Map `B N H W` to the same, with plain and shifted windows."""
        deep = pixels_of(x)
        for index, layer in enumerate(self.layers):
            if index % 2:
                deep = layer(deep, x)
            else:
                shifted = index // 2 % 2 == self.offset
                deep = layer(deep, pairs[shifted], x)
        return self.close(pictured(deep, x)) + x


class RGT(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: RGTConfig) -> None:
        super().__init__()
        self.config: RGTConfig = config
        mean = RGB_MEAN if config.channels == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.mean: Tensor
        self.shallow = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.first_norm = nn.LayerNorm(config.width)
        self.groups = nn.ModuleList(ResidualGroup(group, config) for group in range(len(config.depths)))
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
        # To twice the least, so that the recursion leaves more than a single pixel to look at.
        x = (mirrored_from_small(low, _LEAST, to=2 * _LEAST) - self.mean) * self.config.image_range
        shallow = self.shallow(channels_last(x))  # B N H W
        output = self.reconstruct(self.fuse(self._trunk(shallow)) + shallow)
        return cut(output / self.config.image_range + self.mean, low, scale=self.config.scale)

    def _trunk(self, shallow: Tensor) -> Tensor:
        height, width = shallow.shape[2:]
        plain, shifted = (
            rectangles_of(
                height, width, self.config.sides, shifted=shifted, masked=True, filled=True, like=shallow
            )
            for shifted in (False, True)
        )
        x = pictured(self.first_norm(pixels_of(shallow)), shallow)
        for group in self.groups:
            x = group(x, (plain, shifted))
        return pictured(self.norm(pixels_of(x)), x)


_SMALL: dict[str, object] = {"depths": (6,) * 6, "heads": (6,) * 6}

VARIANTS = {
    name: Variant(RGTConfig.parse(settings, where=name), parameters)
    for name, settings, parameters in (
        ("rgt-x2", {"scale": 2}, 13_217_831),
        ("rgt-x3", {"scale": 3}, 13_402_471),
        ("rgt-x4", {"scale": 4}, 13_365_543),
        ("rgt-s-x2", {"scale": 2, **_SMALL}, 10_051_055),
        ("rgt-s-x3", {"scale": 3, **_SMALL}, 10_235_695),
        ("rgt-s-x4", {"scale": 4, **_SMALL}, 10_198_767),
    )
}

NETWORK = RGT
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"img_range": "image_range", "c_ratio": "reduced"}
"""Authors' arguments that their checkpoints do not show, or not to the last digit."""

EXEMPTIONS = {
    "export": "how often features are shrunk, and whether a small picture is continued, depends on the size",
}
"""What cannot hold for this model, by the name of the test."""

CANCELLED = (".layers.2.bias", ".norms.2.bias", ".key.bias")
"""Ends of the names of parameters that a softmax cancels: a constant added to all of a query's logits.

The norm's bias is one where the ReLU behind it lets each value through for all places, or for none.
"""


def tiny(config: RGTConfig) -> RGTConfig:
    """Return a small relative of a variant, quick enough to test everything on.

    It is 96 wide, as below that the bias of relative places has nothing to learn.
    """
    small = {"width": 96, "depths": (3,), "heads": (2,), "sides": (2, 4), "ratio": 0.5, "features": 8}
    return config.model_copy(update=small)


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^conv_first\.", "shallow."),
    (r"^before_RG\.1\.", "first_norm."),
    (r"^conv_after_body\.", "fuse."),
    (r"^layers\.(\d+)\.blocks\.", r"groups.\1.layers."),
    (r"^layers\.(\d+)\.conv\.", r"groups.\1.close."),
    (r"\.gamma$", ".again"),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".feed_forward_norm."),
    (r"\.attn\.", ".attention."),
    (r"\.attention\.reduction1\.", ".attention.reduce."),
    (r"\.attention\.dwconv\.", ".attention.spread."),
    (r"\.attention\.conv\.", ".attention.narrow."),
    (r"\.attention\.norm_act\.0\.", ".attention.norm."),
    (r"\.attention\.q\.", ".attention.query."),
    (r"\.attention\.k\.", ".attention.key."),
    (r"\.attention\.v\.", ".attention.value."),
    (r"\.attention\.(cpe|get_v)\.", ".attention.near."),
    (r"\.attention\.proj\.", ".attention.project."),
    *OFFICIAL_NAMES,
    (r"\.mlp\.fc1\.", ".feed_forward.expand."),
    (r"\.mlp\.sg\.norm\.", ".feed_forward.norm."),
    (r"\.mlp\.sg\.conv\.", ".feed_forward.spread."),
    (r"\.mlp\.fc2\.", ".feed_forward.contract."),
)
_COMPUTED = re.compile(r"\.(attn_mask_\d|rpe_biases|relative_position_index)$")


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint.

    Returns:
        Our config, state and steps, or None where the keys are not RGT's. `image_range` is taken to be 1,
        windows to be the paper's where their tables are missing, and `reduced` the paper's where no group is
        deep enough to show it.
    """
    marks = ("before_RG.1.weight", "layers.0.blocks.0.mlp.sg.conv.weight", "conv_before_upsample.0.weight")
    if not all(mark in state for mark in marks):
        return None
    ends, known = official_subpixels(state, "reconstruct")
    ours = renamed_state(state, _RENAMES, layers=ends, computed=_COMPUTED)
    width, channels = ours["shallow.weight"].shape[:2]
    depths = depths_of(ours)
    # Each half has as many heads as its bias of places.
    halves = [
        len(ours[f"groups.{group}.layers.0.attention.places.0.layers.2.bias"]) for group in range(len(depths))
    ]
    table = state.get("layers.0.blocks.0.attn.attns.0.relative_position_index")
    narrow = next((value for key, value in ours.items() if key.endswith(".attention.narrow.weight")), None)
    values = {
        "channels": channels,
        "width": width,
        "depths": depths,
        "heads": tuple(2 * heads for heads in halves),
        "sides": RGTConfig().sides if table is None else sides_of(table),
        "ratio": ratio_of([ours["groups.0.layers.0.feed_forward.expand.weight"].shape[::-1]]),
        "reduced": RGTConfig().reduced if narrow is None else ratio_of([(width, len(narrow))]),
        "qkv_bias": "groups.0.layers.0.attention.qkv.bias" in ours,
        "connection": "3conv" if "fuse.0.weight" in ours else "1conv",
        **known,
    }
    shown = () if narrow is None else ("reduced",)
    return Official(RGTConfig.parse(values, where="an RGT of its authors"), ours, shown=shown)
