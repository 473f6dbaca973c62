"""Restormer: a U-shaped transformer whose attention compares channels, at a cost linear in the pixels.

Zamir, Arora, Khan, Hayat, Khan, Yang, CVPR 2022, arXiv:2111.09881. `forward` follows figure 2; blocks from
`nn.restormer`. Several pictures at once ("MHRestormer") as in Liu et al., arXiv:2208.13029 (`nn.heads`).
Shapes: B batch, C picture channels, N width (2ˡ times the first after l halvings), A attention heads, H W,
n heads of the network, K pictures.

Departs from the authors' code:
- Pictures are continued mirrored to multiples of 8 and cut again, as their test scripts do outside of it.
- A program of `torch.export` (the engine "compile") continues a side that one multiple holds to two of it;
  all else does as the authors do there.
- The form for pairs of dual-pixel pictures is left out.
- `norm` also knows the form without a bias, which neither centres nor shifts, `similarity` a ReLU in place of
  the softmax, and `epsilon` another number in the norms: DCPT's networks (arXiv:2501.15510) have these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed
from relume.nn.heads import Heads, HeadsConfig, ManyHeaded
from relume.nn.padding import cut, mirrored_to_multiple
from relume.nn.restormer import RENAMES, Block, Double, Halve, Norm, Similarity, depth_at, ratio_of

CARD = Card(
    name="restormer",
    title="Restormer: Efficient Transformer for High-Resolution Image Restoration",
    summary=(
        "A U-shaped transformer for deblurring, denoising and deraining. Its attention compares channels "
        "over the whole picture instead of pixels, so that its cost is linear in them. Also in the form that "
        "gives several pictures, from which the best is chosen."
    ),
    when=(
        "For restoring photos by a transformer, where a GPU is at hand. NAFNet claims more against motion "
        "blur."
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
    similarity: Similarity = "softmax"
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


class Restormer(ManyHeaded):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C H W`, any H and W from 1 up."""

    def __init__(self, config: RestormerConfig) -> None:
        super().__init__()
        self.config: RestormerConfig = config
        halvings = len(config.depths) - 1
        widths = [config.width * 2**level for level in range(halvings + 1)]

        def blocks(width: int, level: int, depth: int) -> nn.Sequential:
            made = (
                Block(
                    width, heads=config.attention_heads[level], ratio=config.ratio, bias=config.bias,
                    norm=config.norm, epsilon=config.epsilon, similarity=config.similarity,
                )
                for _ in range(depth)
            )  # fmt: skip
            return nn.Sequential(*made)

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


# Authors' names beside the shared ones, replaced after these, and ours; levels are renamed by number.
_RENAMES = (
    (r"^(encoders\.\d+|decoders\.\d+|middle|refine)\.body\.", r"\1."),  # DCPT's form
    (r"^(downs|ups)\.(\d+)\.body\.", r"\1.\2."),
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
        depths=tuple(depth_at(place, ours) for place in places),
        refinement=depth_at("refine", ours),
        attention_heads=tuple(ours[f"{place}.0.attention.temperature"].shape[0] for place in places),
        ratio=ratio_of([ours[f"{place}.0.feed_forward.project.weight"].shape for place in places]),
        bias="intro.bias" in ours,
        norm="with-bias" if "middle.0.norm.bias" in ours else "bias-free",
        epsilon=1e-6 if wrapped else 1e-5,
        similarity="relu" if wrapped else "softmax",
        heads=HeadsConfig(count=heads, combined=heads > 1),
    )
    return Official(config, ours, shown=() if heads > 1 else ("heads.combined",))


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
    return renamed(key, (*RENAMES, *_RENAMES))
