"""Distilling features step by step, and collecting what each block gives.

Hui et al., ACM Multimedia 2019, arXiv:1909.11856 (IMDN); Liu, Tang, Wu, ECCV Workshops 2020, arXiv:2009.11551
(RFDN).
Shapes: B batch, N width, H W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from relume.core.variants import Replacement


class FeatureDistillation(nn.Module):
    """Three times a 1×1 convolution keeps half of the channels and a refinement with a skip goes on (RFDN).

    kₙ = act(Dₙ xₙ),  xₙ₊₁ = act(Rₙ xₙ + xₙ);  k₄ = act(L x₄);  the result is F [k₁ k₂ k₃ k₄].

    Args:
        width: N, at least 2.
        convolution: builds a 3×3 convolution that keeps the size, from channels in and out.
        activation: act.
    """

    def __init__(
        self, width: int, *, convolution: Callable[[int, int], nn.Module], activation: nn.Module
    ) -> None:
        super().__init__()
        half = width // 2
        self.distil = nn.ModuleList(nn.Conv2d(width, half, 1) for _ in range(3))
        self.refine = nn.ModuleList(convolution(width, width) for _ in range(3))
        self.last = convolution(width, half)
        self.activation = activation
        self.fuse = nn.Conv2d(4 * half, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for distil, refine in zip(self.distil, self.refine, strict=True):
            kept.append(self.activation(distil(x)))  # B N/2 H W
            x = self.activation(refine(x) + x)
        kept.append(self.activation(self.last(x)))
        return self.fuse(torch.cat(kept, 1))  # B N H W


class CollectedBlocks(nn.Module):
    """Blocks in a row, all of whose outputs are fused by a 1×1 convolution; closed, with a long skip.

    Args:
        blocks: each keeps the shape.
        width: N.
        activation: behind the fusion.
        close: convolution of N channels that keeps the size.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], *, width: int, activation: nn.Module, close: nn.Module
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.fuse = nn.Conv2d(width * len(self.blocks), width, 1)
        self.activation = activation
        self.close = close

    def forward(self, x: Tensor) -> Tensor:
        shallow, outputs = x, []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return self.close(self.activation(self.fuse(torch.cat(outputs, 1)))) + shallow


OFFICIAL_NAMES: tuple[tuple[str, Replacement], ...] = (
    # Theirs count from 1.
    (r"^B(\d+)\.", lambda match: f"trunk.blocks.{int(match[1]) - 1}."),
    (r"\.c(\d)_d\.", lambda match: f".distillation.distil.{int(match[1]) - 1}."),
    (r"\.c(\d)_r\.", lambda match: f".distillation.refine.{int(match[1]) - 1}."),
    (r"\.c4\.", ".distillation.last."),
    (r"\.c5\.", ".distillation.fuse."),
)
"""Names that RFDN's and BSRN's authors share, and ours for a `trunk` of blocks with a `distillation`."""
