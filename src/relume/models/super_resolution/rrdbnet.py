"""RRDBNet: dense blocks within residual blocks; the network of ESRGAN, BSRGAN and Real-ESRGAN.

Wang, Yu, Wu, Gu, Liu, Dong, Qiao, Loy, ECCV Workshops 2018, arXiv:1809.00219. `forward` follows figure 3 with
the blocks of figure 4: a 3×3 convolution, residual-in-residual dense blocks (RRDB) with a long skip, a
convolution after each doubling by nearest neighbour, two more convolutions. No batch norm.

Shapes: B batch, C picture channels, N width, G growth, k folding, H W low resolution, s scale.

    dense(x) = x + 0.2 · c₅(x, c₁, c₂, c₃, c₄)       each c a 3×3 convolution of x and all c before it
    block(x) = x + 0.2 · dense(dense(dense(x)))

Departs from the paper:
- For x2 and x1 there are two published forms: BSRGAN's has fewer doublings (`folding` 1); Real-ESRGAN's
  (arXiv:2107.10833, section 3.4) always enlarges by 4, and first folds squares of k = 4/s pixels into
  channels. Its code takes multiples of k only; here other sides are continued mirrored, and cut afterwards.
- KAIR's network can enlarge by sub-pixels in place of nearest neighbours (`enlarging` "shuffle"), and by 3 at
  once. Whether nearest neighbours are 2 or 3 times as many, its files do not show; nor ReLUs in place of the
  leaky ones (its `act_mode`), which are not supported.
- The contract of a form that folds has no halo: which pixels come into one square depends on where the
  picture begins, so that a tile cut elsewhere would give other pixels, however wide its halo.
- ncnn cannot run a form that folds, as it has no gathering of pixels by computed places; other engines can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.nn.network import Network, reach
from relume.nn.padding import cut, mirrored_to_multiple
from relume.nn.upsample import reach_through_steps, step_factors

CARD = Card(
    name="rrdbnet",
    title="ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks",
    summary=(
        "The network behind ESRGAN, BSRGAN and Real-ESRGAN, for which more checkpoints are traded than for "
        "any other: 23 blocks of three dense blocks each, no batch norm, doublings by nearest neighbour."
    ),
    when=(
        "To run the many checkpoints for ESRGAN, BSRGAN and Real-ESRGAN that there are, or to train one "
        "that draws texture."
    ),
    venue="ECCV Workshops 2018",
    task=Task.SUPER_RESOLUTION,
    arxiv="1809.00219",
    code="https://github.com/xinntao/ESRGAN",
    claims=tuple(
        Claim(variant="rrdbnet-x4", dataset=dataset, metric=metric, value=value)
        # Of the form trained by L1 alone.
        for dataset, psnr, ssim in (
            ("Set5", 32.73, 0.9011),
            ("Set14", 28.99, 0.7917),
            ("B100", 27.85, 0.7455),
            ("Urban100", 27.03, 0.8153),
            ("Manga109", 31.66, 0.9196),
        )
        for metric, value in (("psnr", psnr), ("ssim", ssim))
    ),
)

_SLOPE = 0.2
_RESIDUAL = 0.2
_START = 0.1
"""Factor on the weights of fresh blocks (section 3.1: a smaller start)."""


class RRDBNetConfig(Config):
    """Settings of an RRDBNet; the defaults are the paper's.

    Attributes:
        scale: s; 1, 2, 3, 4, 8 …
        channels: C.
        width: N ("nf").
        growth: G, channels that a convolution of a dense block adds ("gc").
        depth: residual-in-residual dense blocks ("nb").
        folding: k, side of the squares of input pixels that become channels first; 1 folds none.
        enlarging: "nearest", by nearest neighbours and then a convolution, or "shuffle", by a convolution and
            then sub-pixels ("upsample_mode").
    """

    scale: PositiveInt = 4
    channels: PositiveInt = 3
    width: PositiveInt = 64
    growth: PositiveInt = 32
    depth: PositiveInt = 23
    folding: PositiveInt = 1
    enlarging: Literal["nearest", "shuffle"] = "nearest"

    @model_validator(mode="after")
    def _fits(self) -> RRDBNetConfig:
        enlarged = self.scale * self.folding
        if enlarged != 3 and enlarged & (enlarged - 1):
            raise ValueError(
                "it enlarges by doublings or once by 3, so scale times folding must be a power of 2, or 3, "
                f"not {enlarged}"
            )
        return self


class DenseBlock(nn.Module):
    """Five convolutions, each of the input and all that came before it; a skip around them."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.grow = nn.ModuleList(
            nn.Conv2d(width + index * growth, growth, 3, padding=1) for index in range(4)
        )
        self.merge = nn.Conv2d(width + 4 * growth, width, 3, padding=1)
        with torch.no_grad():
            for layer in (*self.grow, self.merge):
                assert isinstance(layer, nn.Conv2d)
                assert layer.bias is not None
                nn.init.kaiming_normal_(layer.weight).mul_(_START)
                layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        found = x
        for layer in self.grow:
            found = torch.cat([found, F.leaky_relu(layer(found), _SLOPE)], 1)  # B N+iG H W
        return x + _RESIDUAL * self.merge(found)


class Block(nn.Sequential):
    """Three dense blocks with a skip around them (RRDB)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for block in self:
            residual = block(residual)
        return x + _RESIDUAL * residual


class RRDBNet(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: RRDBNetConfig) -> None:
        super().__init__()
        self.config: RRDBNetConfig = config
        width = config.width
        self.factors = step_factors(config.scale * config.folding)
        self.shallow = nn.Conv2d(config.channels * config.folding**2, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width, config.growth) for _ in range(config.depth)))
        self.fuse = nn.Conv2d(width, width, 3, padding=1)
        shuffled = config.enlarging == "shuffle"
        self.steps_up = nn.ModuleList(
            nn.Conv2d(width, width * factor**2 if shuffled else width, 3, padding=1)
            for factor in self.factors
        )
        self.refine = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, config.channels, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; where it folds without a halo."""
        config, halo = self.config, None
        if config.folding == 1:
            after = reach(self.refine) + reach(self.last)
            if config.enlarging == "shuffle":
                after = reach_through_steps(after, factors=self.factors, each=1)
            elif self.factors:
                # A step's convolution comes after its doubling, so the last one's lies with those after it.
                after = reach_through_steps(after + 1, factors=self.factors, each=1) - 1
            halo = reach(self.shallow) + reach(self.blocks) + reach(self.fuse) + after
        return Contract(scale=config.scale, channels=config.channels, halo=halo)

    def forward(self, x: Tensor) -> Tensor:
        low, folding = x, self.config.folding
        if folding > 1:
            x = F.pixel_unshuffle(mirrored_to_multiple(x, folding), folding)  # B Ck² H/k W/k
        x = self.shallow(x)  # B N H/k W/k
        x = x + self.fuse(self.blocks(x))
        for step, factor in zip(self.steps_up, self.factors, strict=True):
            if self.config.enlarging == "shuffle":
                x = F.pixel_shuffle(step(x), factor)
            else:
                x = step(F.interpolate(x, scale_factor=float(factor), mode="nearest"))
            x = F.leaky_relu(x, _SLOPE)
        x = self.last(F.leaky_relu(self.refine(x), _SLOPE))  # B C sH sW, or what was mirrored more
        return x if folding == 1 else cut(x, low, scale=self.config.scale)


VARIANTS = {
    "rrdbnet-x4": Variant(RRDBNetConfig(), parameters=16_697_987),
    # BSRGAN's, with one doubling.
    "rrdbnet-x2": Variant(RRDBNetConfig(scale=2), parameters=16_661_059),
    # Real-ESRGAN's, which fold.
    "rrdbnet-folding-x2": Variant(RRDBNetConfig(scale=2, folding=2), parameters=16_703_171),
    "rrdbnet-folding-x1": Variant(RRDBNetConfig(scale=1, folding=4), parameters=16_723_907),
    # Real-ESRGAN's for drawings.
    "rrdbnet-six-x4": Variant(RRDBNetConfig(depth=6), parameters=4_467_779),
}

NETWORK = RRDBNet
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"upscale": "scale"}
"""KAIR's constructor arguments that its checkpoints do not show."""


def tiny(config: RRDBNetConfig) -> RRDBNetConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"width": 4, "growth": 2, "depth": 1})


# Blocks, in each of the published layouts, and what stands before and behind the number of a convolution.
_BLOCKS = (
    re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])\.(weight|bias)"),  # ESRGAN, BSRGAN
    re.compile(r"body\.(\d+)\.rdb([123])\.conv([1-5])\.(weight|bias)"),  # BasicSR, Real-ESRGAN
    # ESRGAN as first released, and KAIR's, where a convolution without an activation has no number.
    re.compile(r"1\.sub\.(\d+)\.RDB([123])\.conv([1-5])(?:\.0)?\.(weight|bias)"),
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise a checkpoint as of ESRGAN and BSRGAN, of BasicSR, of ESRGAN's first code, or of KAIR.

    Returns:
        Our config, state and steps, or None where the keys are not RRDBNet's. Nearest neighbours are taken to
        double, see the file's head.
    """
    # The first layout's keys begin with "model.", unless what read the file has taken that away.
    state = {key.removeprefix("model."): value for key, value in state.items()}
    layers = {key.rpartition(".")[0] for key in state}
    blocks: dict[str, str] = {}
    for pattern in _BLOCKS:
        for key in state:
            if match := pattern.fullmatch(key):
                block, dense, convolution, part = match.groups()
                layer = "merge" if convolution == "5" else f"grow.{int(convolution) - 1}"
                blocks[key] = f"blocks.{block}.{int(dense) - 1}.{layer}.{part}"
    if not blocks:
        return None
    depth = 1 + max(int(name.split(".")[1]) for name in blocks.values())
    names = _names_around(layers, depth)
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        if key not in blocks and layer not in names:
            return None  # a relative
        ours[blocks.get(key) or f"{names[layer]}.{part}"] = value
    width, taken = ours["shallow.weight"].shape[:2]
    channels = ours["last.weight"].shape[0]
    folding = round((taken / channels) ** 0.5)
    steps = [ours[f"{name}.weight"].shape[0] for name in names.values() if name.startswith("steps_up.")]
    shuffled = any(outputs > width for outputs in steps)
    factors = [math.isqrt(outputs // width) if shuffled else 2 for outputs in steps]
    config = RRDBNetConfig(
        scale=math.prod(factors) // folding,
        channels=channels,
        width=width,
        growth=ours["blocks.0.0.grow.0.weight"].shape[0],
        depth=depth,
        folding=folding,
        enlarging="shuffle" if shuffled else "nearest",
    )
    return Official(config, ours)


def _names_around(layers: set[str], depth: int) -> dict[str, str]:
    """Return the names of the layers before and behind the blocks, and ours."""
    if "conv_body" in layers:
        ups = {f"conv_up{index + 1}": f"steps_up.{index}" for index in range(2)}
        named = {"conv_body": "fuse", **ups, "conv_hr": "refine"}
        return {"conv_first": "shallow", **named, "conv_last": "last"}
    if "trunk_conv" in layers:
        ups = {
            f"upconv{index + 1}": f"steps_up.{index}" for index in range(3) if f"upconv{index + 1}" in layers
        }
        named = {"trunk_conv": "fuse", **ups, "HRconv": "refine"}
        return {"conv_first": "shallow", **named, "conv_last": "last"}
    # Numbered through: 0, the blocks in 1, for each doubling an enlargement, a convolution and an activation.
    *numbers, refine, last = sorted(
        (layer for layer in layers if layer.isdecimal() and layer != "0"), key=int
    )
    steps = {layer: f"steps_up.{index}" for index, layer in enumerate(numbers)}
    return {"0": "shallow", f"1.sub.{depth}": "fuse", **steps, refine: "refine", last: "last"}
