"""Restormer: a U-shaped transformer whose attention compares channels, at a cost linear in the pixels.

Zamir, Arora, Khan, Hayat, Khan, Yang, CVPR 2022, arXiv:2111.09881. `forward` follows figure 2; the attention
is eq. 1, the feed-forward network eq. 2. Several pictures at once ("MHRestormer") as in Liu et al.,
arXiv:2208.13029 (`nn.heads`). Shapes: B batch, C picture channels, N width (2ˡ times the first after l
halvings), A attention heads, H W, n heads of the network, K pictures.

    attention:    W softmax(t · Q̂ K̂ᵀ) V    Q̂, K̂: N/A × HW, rows of length 1; t learnt for each of A
    feed-forward: W (gelu(u) ⊙ v)          u, v: halves of DW₃ₓ₃ W₁ norm(x)

Departs from the authors' code:
- Pictures are continued mirrored to multiples of 8 and cut again, as their test scripts do outside of it.
- The form for pairs of dual-pixel pictures is left out.
- `norm` also knows the form without a bias, which neither centres nor shifts, `similarity` a ReLU in place of
  the softmax, and `epsilon` another number in the norms: DCPT's networks (arXiv:2501.15510) have these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.nn.heads import Heads, HeadsConfig, ManyHeaded
from relume.nn.norms import LayerNorm2d
from relume.nn.padding import cut, mirrored_to_multiple

CARD = Card(
    name="restormer",
    title="Restormer: Efficient Transformer for High-Resolution Image Restoration",
    summary=(
        "A U-shaped transformer for deblurring, denoising and deraining. Its attention compares channels "
        "over the whole picture instead of pixels, so that its cost is linear in them. Also in the form that "
        "gives several pictures, from which the best is chosen."
    ),
    venue="CVPR 2022",
    task=Task.RESTORATION,
    arxiv="2111.09881",
    code="https://github.com/swz30/Restormer",
    claims=tuple(
        Claim(variant="restormer", dataset="GoPro", metric=metric, value=value, protocol="sr-rgb")
        for metric, value in (("psnr", 32.92), ("ssim", 0.961))
    ),
)

Norm = Literal["with-bias", "bias-free"]
Depths = Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=6)]


class RestormerConfig(Config):
    """Settings of a Restormer; the defaults are the paper's.

    Attributes:
        channels: C of the pictures.
        width: N at full size.
        depths: transformer blocks at each size, from full size to the smallest.
        refinement: blocks at full size after the decoder.
        attention_heads: A at each size.
        ratio: hidden width of the feed-forward networks over their width.
        bias: whether convolutions have one.
        norm: which layer norm, see the file's head.
        epsilon: what the norms add to the variance.
        similarity: what makes weights of the channels' likeness.
        heads: how many pictures it makes.
    """

    channels: PositiveInt = 3
    width: PositiveInt = 48
    depths: Depths = (4, 6, 6, 8)
    refinement: PositiveInt = 4
    attention_heads: Depths = (1, 2, 4, 8)
    ratio: PositiveFloat = 2.66
    bias: bool = False
    norm: Norm = "with-bias"
    epsilon: PositiveFloat = 1e-5
    similarity: Literal["softmax", "relu"] = "softmax"
    heads: HeadsConfig = HeadsConfig()

    @model_validator(mode="after")
    def _fits(self) -> RestormerConfig:
        if len(self.attention_heads) != len(self.depths):
            raise ValueError(
                f"attention_heads needs a number for each of the {len(self.depths)} sizes, "
                f"got {len(self.attention_heads)}"
            )
        for level, attention_heads in enumerate(self.attention_heads):
            if self.width * 2**level % attention_heads or self.width * 2 % self.attention_heads[0]:
                raise ValueError(
                    f"attention_heads must divide the width of its size, {self.width * 2**level}, "
                    f"got {attention_heads}"
                )
        return self


class VarianceNorm2d(nn.Module):
    """Divides each pixel's channels by their standard deviation, without centring them."""

    def __init__(self, channels: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        variance = (x - x.mean(1, keepdim=True)).square().mean(1, keepdim=True)
        return x / torch.sqrt(variance + self.eps) * self.weight[:, None, None]


class Attention(nn.Module):
    """Transposed self-attention: channels look at channels, over all pixels."""

    def __init__(self, width: int, *, heads: int, config: RestormerConfig) -> None:
        super().__init__()
        bias, self.similarity = config.bias, config.similarity
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.expand = nn.Conv2d(width, 3 * width, 1, bias=bias)
        self.spread = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=bias)
        self.project = nn.Conv2d(width, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = self.spread(self.expand(x)).unflatten(1, (3, self.heads, -1)).flatten(4)  # B 3 A N/A HW
        query, key, value = rows.unbind(1)
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        likeness = query @ key.transpose(-2, -1) * self.temperature  # B A N/A N/A
        attention = likeness.softmax(-1) if self.similarity == "softmax" else F.relu(likeness)
        mixed = (attention @ value).flatten(1, 2).unflatten(2, (height, width))
        return self.project(mixed)


class FeedForward(nn.Module):
    """Gated feed-forward network with a depthwise look around."""

    def __init__(self, width: int, *, ratio: float, bias: bool) -> None:
        super().__init__()
        hidden = 2 * int(width * ratio)
        self.expand = nn.Conv2d(width, hidden, 1, bias=bias)
        self.spread = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=bias)
        self.project = nn.Conv2d(hidden // 2, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.spread(self.expand(x)).chunk(2, 1)
        return self.project(F.gelu(gate) * value)


class Block(nn.Module):
    """Attention, then feed-forward network, each behind a norm and with a skip."""

    def __init__(self, width: int, *, heads: int, config: RestormerConfig) -> None:
        super().__init__()

        def norm() -> nn.Module:
            kind = LayerNorm2d if config.norm == "with-bias" else VarianceNorm2d
            return kind(width, eps=config.epsilon)

        self.norm = norm()
        self.attention = Attention(width, heads=heads, config=config)
        self.channel_norm = norm()
        self.feed_forward = FeedForward(width, ratio=config.ratio, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.feed_forward(self.channel_norm(x))


class Halve(nn.Sequential):
    """From `B N H W` to `B 2N H/2 W/2`, by sub-pixels."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, width // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


class Double(nn.Sequential):
    """From `B N H W` to `B N/2 2H 2W`, by sub-pixels."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.PixelShuffle(2))


class Restormer(ManyHeaded):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C H W`, any H and W from 1 up."""

    def __init__(self, config: RestormerConfig) -> None:
        super().__init__()
        self.config: RestormerConfig = config
        halvings = len(config.depths) - 1
        widths = [config.width * 2**level for level in range(halvings + 1)]

        def blocks(width: int, level: int, depth: int) -> nn.Sequential:
            heads = config.attention_heads[level]
            return nn.Sequential(*(Block(width, heads=heads, config=config) for _ in range(depth)))

        levels = range(halvings)
        self.intro = nn.Conv2d(config.channels, config.width, 3, padding=1, bias=config.bias)
        self.encoders = nn.ModuleList(blocks(widths[level], level, config.depths[level]) for level in levels)
        self.downs = nn.ModuleList(Halve(widths[level]) for level in levels)
        self.middle = blocks(widths[-1], halvings, config.depths[-1])
        self.ups = nn.ModuleList(Double(widths[level + 1]) for level in reversed(levels))
        # At full size the skip stays beside what comes from below, and the width doubled.
        self.fuses = nn.ModuleList(
            nn.Conv2d(2 * widths[level], widths[level], 1, bias=config.bias) if level else nn.Identity()
            for level in reversed(levels)
        )
        self.decoders = nn.ModuleList(
            blocks(widths[max(level, 1)], level, config.depths[level]) for level in reversed(levels)
        )
        self.refine = blocks(widths[1], 0, config.refinement)
        self.ending = nn.Conv2d(
            widths[1], config.channels * config.heads.count, 3, padding=1, bias=config.bias
        )
        self.heads = Heads(config.heads)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out of the same size; the attention makes the reach unbounded."""
        return Contract(scale=1, channels=self.config.channels, halo=None)

    def stages(self, x: Tensor) -> tuple[Tensor]:
        """Return all pictures, `B K C H W`, of the one stage."""
        features = self.intro(mirrored_to_multiple(x, 2 ** len(self.encoders)))  # B N H W
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(features))
            features = down(skips[-1])  # B 2N H/2 W/2
        features = self.middle(features)
        for up, fuse, decoder in zip(self.ups, self.fuses, self.decoders, strict=True):
            features = decoder(fuse(torch.cat([up(features), skips.pop()], 1)))
        return (self.heads(cut(self.ending(self.refine(features)), x), x),)


_FOUR = HeadsConfig(count=4, combined=True)

VARIANTS = {
    "restormer": Variant(RestormerConfig(), parameters=26_126_644),
    "mhrestormer": Variant(RestormerConfig(heads=_FOUR), parameters=26_134_420),
}

NETWORK = Restormer
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"combinate_heads": "heads.combined"}
"""Authors' constructor arguments that their checkpoints do not show, and our names for them."""


def tiny(config: RestormerConfig) -> RestormerConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(
        update={"width": 4, "depths": (1, 1), "refinement": 1, "attention_heads": (1, 2)}
    )


# Authors' names, in the order in which they are replaced, and ours; levels are renamed by number.
_RENAMES = (
    (r"^patch_embed\.proj\.", "intro."),
    (r"^latent\.", "middle."),
    (r"^refinement\.", "refine."),
    (r"^output\.", "ending."),
    (r"^(encoders\.\d+|decoders\.\d+|middle|refine)\.body\.", r"\1."),  # DCPT's form
    (r"^(downs|ups)\.(\d+)\.body\.", r"\1.\2."),
    (r"\.norm1\.body\.", ".norm."),
    (r"\.norm2\.body\.", ".channel_norm."),
    (r"\.attn\.qkv\.", ".attention.expand."),
    (r"\.attn\.qkv_dwconv\.", ".attention.spread."),
    (r"\.attn\.project_out\.", ".attention.project."),
    (r"\.attn\.temperature$", ".attention.temperature"),
    (r"\.ffn\.project_in\.", ".feed_forward.expand."),
    (r"\.ffn\.dwconv\.", ".feed_forward.spread."),
    (r"\.ffn\.project_out\.", ".feed_forward.project."),
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint, of one head or several, or of DCPT's code.

    Whether heads are combined cannot be seen and is taken to be so where there are several, as in all of the
    authors' options. The ratio is the shortest number that gives the hidden widths.

    Returns:
        Our config, state and steps, or None where the keys are not Restormer's.
    """
    wrapped = "refinement.body.0.attn.temperature" in state
    mine = wrapped or "refinement.0.attn.temperature" in state
    # PromptIR is built upon it, and has prompts beside.
    if "patch_embed.proj.weight" not in state or not mine or "prompt1.prompt_param" in state:
        return None
    halvings = next(level for level in count(1) if f"down{level}_{level + 1}.body.0.weight" not in state) - 1
    ours = {_rename(key, halvings): value for key, value in state.items()}
    width, channels = ours["intro.weight"].shape[:2]
    places = [*(f"encoders.{level}" for level in range(halvings)), "middle"]
    heads = ours["ending.weight"].shape[0] // channels
    config = RestormerConfig(
        channels=channels,
        width=width,
        depths=tuple(_depth(place, ours) for place in places),
        refinement=_depth("refine", ours),
        attention_heads=tuple(ours[f"{place}.0.attention.temperature"].shape[0] for place in places),
        ratio=_ratio([ours[f"{place}.0.feed_forward.project.weight"].shape for place in places]),
        bias="intro.bias" in ours,
        norm="with-bias" if "middle.0.norm.bias" in ours else "bias-free",
        epsilon=1e-6 if wrapped else 1e-5,
        similarity="relu" if wrapped else "softmax",
        heads=HeadsConfig(count=heads, combined=heads > 1),
    )
    return Official(config, ours)


def _rename(key: str, halvings: int) -> str:
    """Return our name for an authors' key; they count sizes from 1 and decoders from large to small."""
    if match := re.match(r"(encoder_level|decoder_level|down|up|reduce_chan_level)(\d+)(_\d+)?\.", key):
        kind, number = match[1], int(match[2])
        place = {
            "encoder_level": ("encoders", number - 1),
            "decoder_level": ("decoders", halvings - number),
            "down": ("downs", number - 1),
            "up": ("ups", halvings + 1 - number),
            "reduce_chan_level": ("fuses", halvings - number),
        }[kind]
        key = f"{place[0]}.{place[1]}.{key[match.end() :]}"
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _depth(place: str, state: Mapping[str, Tensor]) -> int:
    return sum(f"{place}.{index}.attention.temperature" in state for index in range(len(state)))


def _ratio(shapes: Sequence[Sequence[int]]) -> float:
    """Return the shortest decimal that gives the hidden widths; shapes begin by width and hidden width."""
    widths = [(shape[0], shape[1]) for shape in shapes]
    width, hidden = widths[-1]
    for digits in range(6):
        for exact in (hidden / width, (hidden + 0.5) / width):
            if all(int(one * round(exact, digits)) == other for one, other in widths):
                return round(exact, digits)
    raise ValueError(f"no ratio gives the hidden widths {[other for _, other in widths]}")
