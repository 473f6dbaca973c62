"""CATANet: attention in groups of tokens that are alike, wherever in the picture they lie.

Liu, Liu, Tang, Wu, CVPR 2025, arXiv:2503.06896. `forward` follows figure 2: a 3×3 convolution, residual
groups of a token-aggregation block (TAB), local attention in overlapping patches (LRSA) and a 3×3
convolution, a long skip, pixel shuffles; the result is added to the picture enlarged bilinearly.

Shapes: B batch, C picture channels, N width, M centres of tokens, A heads, H W low resolution, s scale.

The contract has no halo: any token may fall into one group with any other.

Departs from the paper and its code:
- Centres of tokens move while training and are stored. Until the first step of training, the means of runs of
  tokens stand in for them, over the whole batch, in use as well.
- Tokens of one centre keep the picture's order; the authors' sorting leaves their order to chance, and the
  output with it. What follows the last token is mirrored, see `nn.token_groups`.
- Patches are no longer than the picture: in the authors' code a picture smaller than the largest patch, 28
  pixels, loses most of its features without a word.
- Overlapping patches are averaged by halving where two overlap. Where a side's last patch reaches the last
  but two, three overlap in a line of pixels, whose sum is quartered: as in the authors' code, by which
  weights were trained.
- Queries, keys and values are made of the features before patches are cut, and put together after patches are
  joined, which is the same and takes less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Task, claims_of
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed_state
from relume.nn.network import Network
from relume.nn.pixelwise import PixelLinear, pixelwise
from relume.nn.token_groups import grouped_attention, means_of_runs, moved, projected, sorted_by_centre

_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
# Table 2, trained on DIV2K, without self-ensemble.
_FIGURES = {
    "catanet-x2": ((38.28, 0.9617), (33.99, 0.9217), (32.37, 0.9023), (33.09, 0.9372), (39.37, 0.9784)),
    "catanet-x3": ((34.75, 0.9300), (30.67, 0.8481), (29.28, 0.8101), (29.04, 0.8689), (34.40, 0.9499)),
    "catanet-x4": ((32.58, 0.8998), (28.90, 0.7880), (27.75, 0.7427), (26.87, 0.8081), (31.31, 0.9183)),
}

CARD = Card(
    name="catanet",
    title="CATANet: Efficient Content-Aware Token Aggregation for Lightweight Image Super-Resolution",
    summary=(
        "A light transformer that gathers tokens of like content from all over the picture into groups and "
        "lets each attend to its group and to the groups' centres. The paper claims up to 0.33 dB more than "
        "SPIN, which clusters as well, at nearly twice its speed."
    ),
    when=(
        "When a light network shall come as near to the large ones as it can: it claims the most here for "
        "about half a million parameters. It runs whole pictures or blended tiles, so rather on a GPU."
    ),
    venue="CVPR 2025",
    task=Task.SUPER_RESOLUTION,
    arxiv="2503.06896",
    code="https://github.com/EquationWalker/CATANet",
    claims=claims_of(_FIGURES, _SETS),
)

_OVERLAP = 2
"""Pixels by which patches overlap."""
_DECAY = 0.999
"""What centres keep of themselves in a step of training."""
_TOKENS = 4096
"""Centres times the tokens of a group, in every group of the paper's: the 64 × 64 of a patch in training."""


class CATANetConfig(Config):
    """Settings of a CATANet; the defaults are the paper's.

    Attributes:
        scale: s; 1 for pictures that keep their size.
        channels: C of the pictures.
        width: N ("dim").
        heads: A, of which N and `query_width` are multiples.
        query_width: numbers of a query of all heads, at most N ("qk_dim").
        hidden: width of the feed-forward networks inside ("mlp_dim").
        patches: side of the local patches in each residual group, pixels ("patch_size").
        centres: M in each residual group ("num_tokens").
        group_sizes: tokens of a group, in each residual group ("group_size").
        rounds: how often centres move in a step of training, in each residual group ("n_iters").
    """

    scale: Literal[1, 2, 3, 4] = 4
    channels: PositiveInt = 3
    width: PositiveInt = 40
    heads: PositiveInt = 4
    query_width: PositiveInt = 36
    hidden: PositiveInt = 96
    patches: tuple[Annotated[int, Field(gt=_OVERLAP)], ...] = (16, 20, 24, 28) * 2
    centres: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 64, 128) * 2
    group_sizes: tuple[PositiveInt, ...] = (256, 128, 64, 32) * 2
    rounds: tuple[PositiveInt, ...] = (5,) * 8

    @model_validator(mode="after")
    def _fits(self) -> CATANetConfig:
        for name in ("patches", "group_sizes", "rounds"):
            if len(getattr(self, name)) != len(self.centres):
                named = len(getattr(self, name))
                raise ValueError(f"{name} names {named} groups, centres {len(self.centres)}; name as many")
        for name in ("width", "query_width"):
            if getattr(self, name) % self.heads:
                raise ValueError(f"{name} {getattr(self, name)} cannot be shared by {self.heads} heads")
        if self.query_width > self.width:
            raise ValueError(f"query_width {self.query_width} must be at most width, {self.width}")
        return self


class Projections(nn.Module):
    """What makes queries, keys and values of tokens, and the output of what was attended to."""

    def __init__(self, config: CATANetConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.scale = config.heads, (config.query_width // config.heads) ** -0.5
        self.query = PixelLinear(width, config.query_width, bias=False)
        self.key = PixelLinear(width, config.query_width, bias=False)
        self.value = PixelLinear(width, width, bias=False)
        self.project = PixelLinear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `… N` to queries, keys and values, `… A 3 D`."""
        return projected(x, self.query, self.key, self.value, heads=self.heads)


class FeedForward(nn.Module):
    """Feed-forward network that looks 5 × 5 pixels around between its two layers; `B H W N`."""

    def __init__(self, config: CATANetConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.expand = PixelLinear(config.width, config.hidden)
        self.spread = nn.Conv2d(config.hidden, config.hidden, 5, padding=2, groups=config.hidden)
        self.contract = PixelLinear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.expand(self.norm(x)))
        x = x + F.gelu(self.spread(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        mixed: Tensor = self.contract(x)
        return mixed


class TokenAggregation(nn.Module):
    """Attention in groups of alike tokens and to their centres, then a feed-forward network (TAB)."""

    def __init__(self, config: CATANetConfig, index: int) -> None:
        super().__init__()
        self.size, self.rounds = config.group_sizes[index], config.rounds[index]
        self.norm = nn.LayerNorm(config.width)
        self.attention = Projections(config)
        self.centre_key = nn.Linear(config.width, config.query_width, bias=False)
        self.centre_value = nn.Linear(config.width, config.width, bias=False)
        self.close = nn.Conv2d(config.width, config.width, 1, bias=False)
        self.feed_forward = FeedForward(config)
        self.register_buffer("centres", torch.randn(config.centres[index], config.width))
        self.register_buffer("started", torch.tensor(False))
        self.centres: Tensor
        self.started: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map `B H W N` to the same."""
        tokens = self.norm(x).flatten(1, 2)  # B HW N
        centres = self._centres(tokens)
        heads = self.attention.heads
        key, value = (
            layer(centres).unflatten(-1, (heads, -1)).transpose(0, 1)
            for layer in (self.centre_key, self.centre_value)
        )  # A M D
        key = F.pad(key, (0, value.shape[2] - key.shape[2]))  # as long as queries are made
        mixed = grouped_attention(
            self.attention(tokens), sorted_by_centre(tokens.detach(), centres.detach()), (key, value),
            size=self.size, scale=self.attention.scale,
        )  # fmt: skip
        mixed = self.attention.project(mixed.flatten(2)).unflatten(1, x.shape[1:3])
        x = x + pixelwise(mixed, self.close.weight.flatten(1))
        return x + self.feed_forward(x)

    def _centres(self, tokens: Tensor) -> Tensor:
        """Return the centres, `M N`; in training they move, and what is stored follows."""
        # What a compiler follows, or what is only counted, has no values to ask for.
        if torch.compiler.is_compiling() or self.started.is_meta:
            centres = torch.where(self.started, self.centres, means_of_runs(tokens, len(self.centres)))
        elif self.started:
            centres = self.centres
        else:
            centres = means_of_runs(tokens, len(self.centres)).detach()
        if not self.training:
            return centres
        with torch.no_grad():
            for _ in range(self.rounds - 1):
                centres = moved(tokens, centres)
        centres = moved(tokens, centres)
        with torch.no_grad():
            new = centres.detach().to(self.centres.dtype)
            # Not in place: what was stored may still be needed for going backward.
            self.centres = torch.lerp(new, self.centres, _DECAY) if self.started else new
            self.started = torch.ones_like(self.started)
        return centres


class LocalAttention(nn.Module):
    """Attention in overlapping patches, then a feed-forward network (LRSA)."""

    def __init__(self, config: CATANetConfig, index: int) -> None:
        super().__init__()
        self.patch = config.patches[index]
        self.norm = nn.LayerNorm(config.width)
        self.attention = Projections(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map `B H W N` to the same."""
        height, width = x.shape[1:3]
        rows, columns = (_places(side, self.patch, x.device) for side in (height, width))  # n h, m w
        tokens = self.attention(self.norm(x)).flatten(3)  # B H W 3N
        patches = tokens.index_select(1, rows.flatten()).index_select(2, columns.flatten())
        patches = patches.unflatten(2, columns.shape).unflatten(1, rows.shape).transpose(2, 3)  # B n m h w 3N
        shape = patches.shape[:5]
        heads = patches.flatten(3, 4).flatten(0, 2).unflatten(2, (self.attention.heads, 3, -1))
        query, key, value = heads.permute(3, 0, 2, 1, 4).unbind(0)  # Bnm A hw D
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.attention.scale)
        mixed = mixed.transpose(1, 2).flatten(2).unflatten(1, shape[3:]).unflatten(0, shape[:3])
        mixed = mixed.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # B nh mw N
        mixed, kept = _halved(mixed, columns, dim=2, side=width)
        mixed, kept_too = _halved(mixed, rows, dim=1, side=height)
        x = x * kept * kept_too[:, None] + self.attention.project(mixed)
        return x + self.feed_forward(x)


def _places(side: int, patch: int, device: torch.device) -> Tensor:
    """Return which pixels of a side each patch holds, `patches × pixels`; the last one ends at the border."""
    length, step = min(side, patch), patch - _OVERLAP
    count = (side - length + step - 1) // step + 1
    first = (torch.arange(count, device=device) * step).clamp(max=side - length)
    return first[:, None] + torch.arange(length, device=device)


def _halved(x: Tensor, places: Tensor, *, dim: int, side: int) -> tuple[Tensor, Tensor]:
    """Join patches along a side: their sum, halved for each one more that holds a pixel, see the file's head.

    Returns:
        The joined features; and what joining makes of features that all patches agree on, `side 1`.
    """
    order = places.flatten()
    count = x.new_zeros(side, 1).index_add(0, order, x.new_ones(len(order), 1))
    share = 0.5 ** (count - 1)
    shape = (*x.shape[:dim], side, *x.shape[dim + 1 :])
    joined = x.new_zeros(shape).index_add(dim, order, x)
    return joined * (share if dim == 2 else share[:, None]), count * share


class ResidualGroup(nn.Module):
    """Token aggregation, local attention and a 3×3 convolution, with a skip."""

    def __init__(self, config: CATANetConfig, index: int) -> None:
        super().__init__()
        self.aggregate = TokenAggregation(config, index)
        self.local = LocalAttention(config, index)
        self.close = nn.Conv2d(config.width, config.width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `B N H W` to the same."""
        deep = self.local(self.aggregate(x.permute(0, 2, 3, 1)))  # B H W N
        return x + self.close(deep.permute(0, 3, 1, 2))


class CATANet(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: CATANetConfig) -> None:
        super().__init__()
        self.config: CATANetConfig = config
        width, scale = config.width, config.scale
        self.shallow = nn.Conv2d(config.channels, width, 3, padding=1)
        self.groups = nn.Sequential(*(ResidualGroup(config, index) for index in range(len(config.centres))))
        self.factors = {1: (), 4: (2, 2)}.get(scale, (scale,))
        self.enlarge = nn.ModuleList(
            nn.Conv2d(width, width * factor**2, 3, padding=1) for factor in self.factors
        )
        self.reconstruct = nn.Conv2d(width, config.channels, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; no halo, see the file's head."""
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        # Tokens are rows of channels, which is how channels-last memory has them.
        shallow = self.shallow(x.contiguous(memory_format=torch.channels_last))  # B N H W
        deep = self.groups(shallow) + shallow
        for layer, factor in zip(self.enlarge, self.factors, strict=True):
            deep = F.leaky_relu(F.pixel_shuffle(layer(deep), factor), 0.1)
        if self.config.scale > 1:
            x = F.interpolate(x, scale_factor=self.config.scale, mode="bilinear")
        return self.reconstruct(deep) + x


VARIANTS = {
    f"catanet-x{scale}": Variant(CATANetConfig(scale=scale), parameters)
    for scale, parameters in ((2, 477_435), (3, 549_635), (4, 535_195))
}

NETWORK = CATANet
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {
    "setting.heads": "heads",
    "setting.patch_size": "patches",
    "group_size": "group_sizes",
    "n_iters": "rounds",
}
"""Authors' arguments that their checkpoints do not show; after a dot, those of their class attribute."""


def tiny(config: CATANetConfig) -> CATANetConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    small = {"width": 8, "heads": 2, "query_width": 6, "hidden": 6, "patches": (6,), "centres": (3,)}
    return config.model_copy(update={**small, "group_sizes": (8,), "rounds": (2,)})


EXEMPTIONS = {
    "bfloat16": "a likeness that is rounded sends tokens to other groups, where they see other tokens",
    "export": "how many patches and groups there are, and how long, depends on the size in steps",
}
"""Tests over every variant that cannot hold, and why."""

# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^first_conv\.", "shallow."),
    (r"^last_conv\.", "reconstruct."),
    (r"^upconv2\.", "enlarge.1."),
    (r"^upconv1?\.", "enlarge.0."),
    (r"^mid_convs\.(\d+)\.", r"groups.\1.close."),
    (r"^blocks\.(\d+)\.0\.", r"groups.\1.aggregate."),
    (r"^blocks\.(\d+)\.1\.layer\.", r"groups.\1.local.layer"),
    (r"\.iasa_attn\.to_q\.", ".attention.query."),
    (r"\.iasa_attn\.to_k\.", ".attention.key."),
    (r"\.iasa_attn\.to_v\.", ".attention.value."),
    (r"\.iasa_attn\.proj\.", ".attention.project."),
    (r"\.irca_attn\.to_k\.", ".centre_key."),
    (r"\.irca_attn\.to_v\.", ".centre_value."),
    (r"\.conv1x1\.", ".close."),
    (r"\.means$", ".centres"),
    (r"\.initted$", ".started"),
    (r"\.layer0\.norm\.", ".norm."),
    (r"\.layer0\.fn\.to_q\.", ".attention.query."),
    (r"\.layer0\.fn\.to_k\.", ".attention.key."),
    (r"\.layer0\.fn\.to_v\.", ".attention.value."),
    (r"\.layer0\.fn\.proj\.", ".attention.project."),
    (r"\.(?:mlp|layer1)\.norm\.", ".feed_forward.norm."),
    (r"\.(?:mlp|layer1)\.fn\.fc1\.", ".feed_forward.expand."),
    (r"\.(?:mlp|layer1)\.fn\.fc2\.", ".feed_forward.contract."),
    (r"\.(?:mlp|layer1)\.fn\.dwconv\.depthwise_conv\.0\.", ".feed_forward.spread."),
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint.

    Returns:
        Our config and state, or None where the keys are not CATANet's. Heads are taken to be four or the next
        fewer that fit; patches and rounds to be the authors', in turn; groups to be as large as in the paper
        for so many centres.
    """
    if "blocks.0.0.iasa_attn.to_q.weight" not in state or "blocks.0.1.layer.0.fn.to_q.weight" not in state:
        return None
    ours = renamed_state(state, _RENAMES)
    return Official(_config_of(ours), ours)


def _config_of(ours: Mapping[str, Tensor]) -> CATANetConfig:
    """Read the settings off the state under our names."""
    width, channels = ours["shallow.weight"].shape[:2]
    count = len({key.split(".")[1] for key in ours if key.startswith("groups.")})
    centres = [ours[f"groups.{index}.aggregate.centres"].shape[0] for index in range(count)]
    query_width = ours["groups.0.aggregate.attention.query.weight"].shape[0]
    scale = 1
    if "enlarge.1.weight" in ours:
        scale = 4
    elif "enlarge.0.weight" in ours:
        scale = round((ours["enlarge.0.weight"].shape[0] / width) ** 0.5)
    values = {
        "scale": scale,
        "channels": channels,
        "width": width,
        "heads": max(heads for heads in range(1, 5) if width % heads == 0 and query_width % heads == 0),
        "query_width": query_width,
        "hidden": ours["groups.0.aggregate.feed_forward.expand.weight"].shape[0],
        "patches": [(16, 20, 24, 28)[index % 4] for index in range(count)],
        "centres": centres,
        "group_sizes": [max(1, _TOKENS // number) for number in centres],
        "rounds": [5] * count,
    }
    return CATANetConfig.parse(values, where="a CATANet of its authors")
