"""A classifier of features: what happened to a picture, as the layers of a network see it.

Hu, Jin, Yao, Lu, ICLR 2025, arXiv:2501.15510 (DCPT), the light decoder. Features come from several layers,
the largest first. With f_i the features, m the softmax of learnt weights, S_i bottleneck blocks (He et al.,
CVPR 2016, arXiv:1512.03385, with layer norms) and D_i a 1×1 convolution, halving by maxima and a ReLU:

    x_0 = 0, or a 7×7 convolution of the picture that halves it;  x_i+1 = D_i S_i(x_i + m_i f_i)
    logits = W mean(S x)

Shapes: B batch, N_i width of layer i, H W size of the largest features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.config import Config
from relume.core.errors import ConfigError
from relume.nn.norms import LayerNorm2d


class FeatureClassifierConfig(Config):
    """Settings of a classifier.

    Attributes:
        widths: N_i, the features' channels, from the largest features to the smallest.
        classes: K.
        blocks: bottleneck blocks of each stage.
        picture: whether it sees the picture too; the largest features are then half as large as it.
    """

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    classes: Annotated[int, Field(ge=2)]
    blocks: PositiveInt = 2
    picture: bool = False

    def build(self) -> FeatureClassifier:
        """Return the classifier, with random weights."""
        return FeatureClassifier(self)


class Bottleneck(nn.Module):
    """Convolutions 1×1, 3×3 and 1×1 of twice the width, each with a norm; with a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.expand_norm = LayerNorm2d(2 * width)
        self.spread = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.spread_norm = LayerNorm2d(2 * width)
        self.contract = nn.Conv2d(2 * width, width, 1, bias=False)
        self.contract_norm = LayerNorm2d(width)
        for conv in (self.expand, self.spread, self.contract):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.expand_norm(self.expand(x)))
        hidden = F.relu(self.spread_norm(self.spread(hidden)))
        return F.relu(self.contract_norm(self.contract(hidden)) + x)


class FeatureClassifier(nn.Module):
    """The whole classifier: features `B N_i H_i W_i`, and perhaps the picture, to logits `B K`."""

    def __init__(self, config: FeatureClassifierConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths

        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(*(Bottleneck(width) for _ in range(config.blocks)))

        self.embed = nn.Conv2d(3, widths[0], 7, stride=2, padding=3) if config.picture else None
        self.embed_norm = LayerNorm2d(widths[0]) if config.picture else None
        self.shares = nn.Parameter(torch.ones(len(widths)))
        self.stages = nn.ModuleList(stage(width) for width in widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(width, wide, 1, bias=False) for width, wide in pairwise((*widths, widths[-1]))
        )
        self.last = stage(widths[-1])
        self.decide = nn.Linear(widths[-1], config.classes)

    def forward(self, features: Sequence[Tensor], picture: Tensor | None = None) -> Tensor:
        """Return logits.

        Args:
            features: as many as there are widths. Where they are larger than half of those before, every
                second pixel is taken, or every fourth …, so that layers of one size will do.
            picture: `B 3 H W`, where the settings say so.

        Raises:
            ConfigError: the features are too small to be halved so often, become smaller faster than by
                halves, or have other widths.
        """
        _refuse_others(features, self.config.widths)
        x = features[0].new_zeros(())
        if self.embed is not None and self.embed_norm is not None:
            assert picture is not None, "this classifier sees the picture"
            x = self.embed_norm(self.embed(picture))
        for index, (feature, share) in enumerate(zip(features, self.shares.softmax(0), strict=True)):
            x = self.stages[index](x + share * (_as_large_as(x, feature) if index else feature))
            x = F.relu(F.max_pool2d(self.downs[index](x), 2))
        logits: Tensor = self.decide(self.last(x).mean((2, 3)))
        return logits


def _as_large_as(x: Tensor, feature: Tensor) -> Tensor:
    if feature.shape[2:] == x.shape[2:]:
        return feature
    if any(one < other for one, other in zip(feature.shape[2:], x.shape[2:], strict=True)):
        given, due = (tuple(each.shape[2:]) for each in (feature, x))
        raise ConfigError(
            f"classifying goes from the largest features to the smallest by halves; {given} come too early "
            f"where {due} are due; name other layers, or turn them round"
        )
    return F.interpolate(feature, x.shape[2:], mode="nearest")


def _refuse_others(features: Sequence[Tensor], widths: tuple[int, ...]) -> None:
    found = tuple(feature.shape[1] for feature in features)
    if found != widths:
        raise ConfigError(f"the layers to classify by have widths {found}, not {widths}; give these instead")
    smallest = 2 ** len(widths)
    height, width = features[0].shape[2:]
    if min(height, width) < smallest:
        raise ConfigError(
            f"classifying by {len(widths)} layers halves {height}x{width} features too often; "
            f"take a data.patch that makes them {smallest}x{smallest} or more"
        )
