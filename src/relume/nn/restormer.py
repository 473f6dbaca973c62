"""Blocks of Restormer, which networks built upon it share: attention between channels, gated feed-forward.

And how their authors' checkpoints are read, as far as they agree.

Zamir et al., CVPR 2022, arXiv:2111.09881, eq. 1 and 2; the blocks' other forms are those of DCPT's networks
(arXiv:2501.15510). Shapes: B batch, N width, A attention heads, H W.

    attention: W softmax(t · Q̂ K̂ᵀ) V     Q̂, K̂: rows of N/A × HW, each of length 1; t learnt, one a head
    feed-forward: W (gelu(u) ⊙ v)        u, v: halves of DW₃ₓ₃ W₁ norm(x)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.nn.norms import LayerNorm2d
from relume.nn.pixelwise import PixelConv2d

Norm = Literal["with-bias", "bias-free"]
Similarity = Literal["softmax", "relu", "gelu", "sigmoid"]


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

    def __init__(
        self, width: int, *, heads: int, bias: bool = False, similarity: Similarity = "softmax"
    ) -> None:
        super().__init__()
        self.similarity = similarity
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.expand = PixelConv2d(width, 3 * width, bias=bias)
        self.spread = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=bias)
        self.project = PixelConv2d(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.project(self.mixed(self.spread(self.expand(x))))
        return mixed

    def mixed(self, rows: Tensor) -> Tensor:
        """Return `B N H W` from queries, keys and values `B 3N H W`, each channel over all of H W."""
        query, key, value = rows.chunk(3, 1)
        return attend_channels(query, key, value, self.temperature, similarity=self.similarity)


def attend_channels(
    query: Tensor, key: Tensor, value: Tensor, temperature: Tensor, *, similarity: Similarity = "softmax"
) -> Tensor:
    """Let channels look at channels over all pixels: softmax(t · Q̂ K̂ᵀ) V for each head.

    Args:
        query: `B N H W`.
        key: the same.
        value: the same.
        temperature: t, `A 1 1`.
        similarity: what makes weights of the channels' likeness.
    """
    size, heads = value.shape[2:], len(temperature)
    query, key, value = (
        part.unflatten(1, (heads, -1)).flatten(3) for part in (query, key, value)
    )  # B A N/A HW
    # Of the two, only one is made anew whole; not neither, as sums over all pixels might be too large.
    lengths = key.norm(dim=-1).clamp_min(1e-12)[:, :, None]  # B A 1 N/A
    likeness = F.normalize(query, dim=-1) @ key.transpose(-2, -1) / lengths * temperature  # B A N/A N/A
    match similarity:
        case "softmax":
            attention = likeness.softmax(-1)
        case "relu":
            attention = F.relu(likeness)
        case "gelu":
            attention = F.gelu(likeness)
        case "sigmoid":
            attention = likeness.sigmoid()
    return (attention @ value).flatten(1, 2).unflatten(2, size)


class FeedForward(nn.Module):
    """Gated feed-forward network with a depthwise look around."""

    def __init__(self, width: int, *, ratio: float, bias: bool = False) -> None:
        super().__init__()
        hidden = 2 * int(width * ratio)
        self.expand = PixelConv2d(width, hidden, bias=bias)
        self.spread = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=bias)
        self.project = PixelConv2d(hidden // 2, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.spread(self.expand(x)).chunk(2, 1)
        mixed: Tensor = self.project(F.gelu(gate) * value)
        return mixed


class Block(nn.Module):
    """Attention, then feed-forward network, each behind a norm and with a skip.

    Args:
        width: N.
        heads: A.
        ratio: hidden width of the feed-forward network over N.
        bias: whether convolutions have one.
        norm: a layer norm, or one that neither centres nor shifts.
        epsilon: what the norms add to the variance.
        similarity: what makes weights of the channels' likeness.
    """

    def __init__(
        self, width: int, *, heads: int, ratio: float, bias: bool = False, norm: Norm = "with-bias",
        epsilon: float = 1e-5, similarity: Similarity = "softmax",
    ) -> None:  # fmt: skip
        super().__init__()
        kind = LayerNorm2d if norm == "with-bias" else VarianceNorm2d
        self.norm = kind(width, eps=epsilon)
        self.attention = Attention(width, heads=heads, bias=bias, similarity=similarity)
        self.channel_norm = kind(width, eps=epsilon)
        self.feed_forward = FeedForward(width, ratio=ratio, bias=bias)

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


RENAMES = (
    (r"^patch_embed\.proj\.", "intro."),
    (r"^latent\.", "middle."),
    (r"^refinement\.", "refine."),
    (r"^output\.", "ending."),
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
"""Authors' names that these networks share, in the order in which they are replaced, and ours."""


def depth_at(place: str, state: Mapping[str, Tensor]) -> int:
    """Return how many blocks a state, under our names, has at a place such as "encoders.0"."""
    return next(index for index in count() if f"{place}.{index}.attention.temperature" not in state)


def ratio_of(shapes: Sequence[Sequence[int]]) -> float:
    """Return the shortest decimal that gives the hidden widths; shapes begin by width and hidden width.

    Raises:
        ValueError: none of up to seven digits does.
    """
    widths = [(shape[0], shape[1]) for shape in shapes]
    for digits in range(8):
        # Rounded up, as hidden widths are rounded down.
        ratio = max(-(-hidden * 10**digits // width) for width, hidden in widths) / 10**digits
        if all(int(width * ratio) == hidden for width, hidden in widths):
            return ratio
    raise ValueError(f"no ratio gives the hidden widths {[hidden for _, hidden in widths]}")
