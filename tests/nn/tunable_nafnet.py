"""NAFNet (Chen et al., ECCV 2022) of tunable layers, with the authors' names, as their outputs need it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from relume.core.config import Config
from relume.core.contract import Contract
from relume.nn.network import Network
from relume.nn.slider import make_tunable
from relume.nn.tunable import TunableConv2d, TunableParameter


class NAFNetConfig(Config):
    width: int = 8
    encoders: tuple[int, ...] = (1, 1)
    middle: int = 1
    decoders: tuple[int, ...] = (1, 1)
    parameters: int = 2
    mode: str = "mlp"

    @property
    def how(self):
        return {"parameters": self.parameters, "mode": self.mode}


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.ones(1, width, 1, 1)) for _ in range(2))

    def forward(self, x):
        x = x - x.mean(1, keepdim=True)
        return self.weight * x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt() + self.bias


def gate(x):
    left, right = x.chunk(2, 1)
    return left * right


class Block(nn.Module):
    def __init__(self, width, how):
        super().__init__()
        wide = 2 * width
        self.conv1 = TunableConv2d(nn.Conv2d(width, wide, 1), **how)
        self.conv2 = TunableConv2d(nn.Conv2d(wide, wide, 3, padding=1, groups=wide), **how)
        self.conv3 = TunableConv2d(nn.Conv2d(width, width, 1), **how)
        self.sca = TunableConv2d(nn.Conv2d(width, width, 1), **how)
        self.conv4 = TunableConv2d(nn.Conv2d(width, wide, 1), **how)
        self.conv5 = TunableConv2d(nn.Conv2d(width, width, 1), **how)
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.beta, self.gamma = (TunableParameter(torch.rand(width, 1, 1), **how) for _ in range(2))

    def forward(self, x):
        gated = gate(self.conv2(self.conv1(self.norm1(x))))
        y = x + self.beta() * self.conv3(gated * self.sca(gated.mean((2, 3), keepdim=True)))
        return y + self.gamma() * self.conv5(gate(self.conv4(self.norm2(y))))


class TunableNAFNet(Network):
    def __init__(self, config: NAFNetConfig) -> None:
        super().__init__()
        self.config, how = config, config.how
        widths = [config.width * 2**i for i in range(len(config.encoders) + 1)]

        def blocks(count, width):
            return nn.Sequential(*(Block(width, how) for _ in range(count)))

        self.intro = TunableConv2d(nn.Conv2d(3, config.width, 3, padding=1), **how)
        self.ending = TunableConv2d(nn.Conv2d(config.width, 3, 3, padding=1), **how)
        self.encoders = nn.ModuleList(map(blocks, config.encoders, widths))
        self.downs = nn.ModuleList(
            TunableConv2d(nn.Conv2d(one, other, 2, stride=2), **how) for one, other in pairwise(widths)
        )
        self.middle_blks = blocks(config.middle, widths[-1])
        self.ups = nn.ModuleList(
            TunableConv2d(nn.Conv2d(width, 2 * width, 1, bias=False), **how) for width in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(map(blocks, config.decoders, widths[-2::-1]))
        make_tunable(self)

    @property
    def contract(self) -> Contract:
        return Contract(scale=1, channels=3, halo=None)

    def forward(self, x):
        height, width = x.shape[2:]
        side = 2 ** len(self.encoders)
        features = self.intro(F.pad(x, (0, -width % side, 0, -height % side)))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(features))
            features = down(skips[-1])
        features = self.middle_blks(features)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            features = decoder(F.pixel_shuffle(up(features), 2) + skips.pop())
        return self.ending(features)[:, :, :height, :width] + x
