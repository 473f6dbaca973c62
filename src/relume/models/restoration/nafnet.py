"""NAFNet: a U-shaped network without activation functions; halves of its channels multiply each other.

Chen, Chu, Zhang, Sun, ECCV 2022, arXiv:2204.04676. `forward` follows figure 2(c), the blocks figure 3(d).
Several pictures at once ("MHNAFNet") as in Liu et al., arXiv:2208.13029 (`nn.heads`).
Shapes: B batch, C picture channels, N width (2ˡ times the first after l halvings), H W, n heads, K pictures.

    gate(u, v) = u · v                               for the two halves of the channels
    y = x + β · W₃(a ⊙ mean(a)W),  a = gate(DW₃ₓ₃ W₁ norm(x))
    z = y + γ · W₅ gate(W₄ norm(y))

Departs from the paper and its code:
- `patch`, by default 256 as the authors trained: their test form ("NAFNetLocal"; `nn.local_mean`) for all
  pictures, which is the plain network on those of up to 1.5 times that. None is the plain network always.
- The authors' multi-head network fails on sides that 2 to the number of halvings does not divide; this one,
  like their plain one, appends zeros and cuts them off again.
- A program of `torch.export` (the engine "compile") continues a side that one multiple holds to two of it;
  all else does as the authors do there.
- β and γ are zero at first, so that a fresh network gives back its input; their shape has no batch of one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import BeforeValidator, Field, PositiveInt, model_validator
from torch import Tensor, nn

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed_state
from relume.nn.heads import Heads, HeadsConfig, ManyHeaded
from relume.nn.local_mean import LocalMean, window_at
from relume.nn.norms import LayerNorm2d
from relume.nn.padding import cut, zeros_to_multiple

CARD = Card(
    name="nafnet",
    title="Simple Baselines for Image Restoration",
    summary=(
        "A plain U-shaped network for deblurring and denoising that uses no activation function: layer "
        "norms, depthwise convolutions, gates that multiply halves of the channels, and channels weighed by "
        "their mean. Also in the form that gives several pictures, from which the best is chosen."
    ),
    when=(
        "For motion blur and camera noise: the first to try, as it is simple and claims the most here for "
        "both."
    ),
    venue="ECCV 2022",
    task=Task.RESTORATION,
    arxiv="2204.04676",
    code="https://github.com/megvii-research/NAFNet",
    claims=tuple(
        Claim(variant=variant, dataset=dataset, metric=metric, value=value, protocol="sr-rgb")
        for variant, dataset, psnr, ssim in (
            ("nafnet-32", "GoPro", 32.87, 0.9606),  # of the authors' code page; the paper has width 64 only
            ("nafnet-64", "GoPro", 33.69, 0.967),
            ("nafnet-sidd-64", "SIDD", 40.30, 0.962),
        )
        for metric, value in (("psnr", psnr), ("ssim", ssim))
    ),
)


def _sides(value: object) -> object:
    """Take the last two of the authors' batch, channels, height and width."""
    return value[2:] if isinstance(value, list | tuple) and len(value) == 4 else value


Side = Annotated[int, Field(ge=1, le=512)]
Depths = Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=6)]


class NAFNetConfig(Config):
    """Settings of a NAFNet; the defaults are the authors' smaller network for deblurring.

    Attributes:
        channels: C of the pictures.
        width: N at full size.
        encoders: blocks before each halving.
        middle: blocks at the smallest size.
        decoders: blocks after each doubling, from small to large.
        patch: height and width of the patches that it was trained on, after which local means go; None for
            means over whole pictures.
        heads: how many pictures it makes.
    """

    channels: PositiveInt = 3
    width: PositiveInt = 32
    encoders: Depths = (1, 1, 1, 28)
    middle: PositiveInt = 1
    decoders: Depths = (1, 1, 1, 1)
    patch: Annotated[tuple[Side, Side] | None, BeforeValidator(_sides)] = (256, 256)
    heads: HeadsConfig = HeadsConfig()

    @model_validator(mode="after")
    def _fits(self) -> NAFNetConfig:
        if len(self.encoders) != len(self.decoders):
            raise ValueError(
                f"what is halved {len(self.encoders)} times must be doubled as often, "
                f"so decoders needs as many numbers as encoders, not {len(self.decoders)}"
            )
        return self


def gate(x: Tensor) -> Tensor:
    """Multiply both halves of the channels: `B 2N H W` to `B N H W`."""
    left, right = x.chunk(2, 1)
    return left * right


class Block(nn.Module):
    """Mixing of places with channels weighed by their mean, then of channels; each with a scaled skip."""

    def __init__(self, width: int, window: tuple[int, int] | None) -> None:
        super().__init__()
        self.norm = LayerNorm2d(width)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.spread = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.mean = LocalMean(window)
        self.weigh = nn.Conv2d(width, width, 1)
        self.project = nn.Conv2d(width, width, 1)
        self.scale = nn.Parameter(torch.zeros(width, 1, 1))
        self.channel_norm = LayerNorm2d(width)
        self.channel_expand = nn.Conv2d(width, 2 * width, 1)
        self.channel_project = nn.Conv2d(width, width, 1)
        self.channel_scale = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        gated = gate(self.spread(self.expand(self.norm(x))))
        x = x + self.scale * self.project(gated * self.weigh(self.mean(gated)))
        return x + self.channel_scale * self.channel_project(gate(self.channel_expand(self.channel_norm(x))))


class NAFNet(ManyHeaded):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C H W`, any H and W from 1 up."""

    def __init__(self, config: NAFNetConfig) -> None:
        super().__init__()
        self.config: NAFNetConfig = config
        levels = len(config.encoders)
        widths = [config.width * 2**level for level in range(levels + 1)]

        def blocks(depth: int, level: int) -> nn.Sequential:
            patch = config.patch
            window = patch and window_at(patch, level=level, levels=levels)
            return nn.Sequential(*(Block(widths[level], window) for _ in range(depth)))

        self.intro = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.encoders = nn.ModuleList(blocks(depth, level) for level, depth in enumerate(config.encoders))
        self.downs = nn.ModuleList(nn.Conv2d(narrow, wide, 2, stride=2) for narrow, wide in pairwise(widths))
        self.middle = blocks(config.middle, levels)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, 2 * wide, 1, bias=False), nn.PixelShuffle(2))
            for wide in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(
            blocks(depth, levels - 1 - index) for index, depth in enumerate(config.decoders)
        )
        self.ending = nn.Conv2d(config.width, config.channels * config.heads.count, 3, padding=1)
        self.heads = Heads(config.heads)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out of the same size; means make the reach unbounded."""
        return Contract(scale=1, channels=self.config.channels, halo=None)

    def stages(self, x: Tensor) -> tuple[Tensor]:
        """Return all pictures, `B K C H W`, of the one stage."""
        padded = zeros_to_multiple(x, 2 ** len(self.config.encoders))
        features = self.intro(padded.contiguous(memory_format=torch.channels_last))  # B N H W
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(features))
            features = down(skips[-1])  # B 2N H/2 W/2
        features = self.middle(features)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            features = decoder(up(features) + skips.pop())
        return (self.heads(cut(self.ending(features), x), x),)


_DEBLURRING = {"encoders": (1, 1, 1, 28), "middle": 1, "decoders": (1, 1, 1, 1)}
_DENOISING = {"encoders": (2, 2, 4, 8), "middle": 12, "decoders": (2, 2, 2, 2)}
_SMALL = {"encoders": (1, 1, 2), "middle": 2, "decoders": (1, 1, 1), "patch": (64, 64)}
_FOUR = HeadsConfig(count=4, combined=True)

VARIANTS = {
    "nafnet-32": Variant(NAFNetConfig(width=32, **_DEBLURRING), parameters=17_111_907),
    "nafnet-64": Variant(NAFNetConfig(width=64, **_DEBLURRING), parameters=67_888_835),
    "nafnet-sidd-64": Variant(NAFNetConfig(width=64, **_DENOISING), parameters=115_982_915),
    "mhnafnet-32": Variant(NAFNetConfig(width=32, heads=_FOUR, **_DEBLURRING), parameters=17_114_508),
    "mhnafnet-64": Variant(NAFNetConfig(width=64, heads=_FOUR, **_DEBLURRING), parameters=67_894_028),
    # Of this project, for those without a GPU.
    "nafnet-small": Variant(NAFNetConfig(width=16, **_SMALL), parameters=438_387),
    "mhnafnet-small": Variant(NAFNetConfig(width=16, heads=_FOUR, **_SMALL), parameters=439_692),
}

NETWORK = NAFNet
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"train_size": "patch", "combinate_heads": "heads.combined"}
"""Authors' constructor arguments that their checkpoints do not show, and our names for them."""


def tiny(config: NAFNetConfig) -> NAFNetConfig:
    """Return a small relative of a variant, quick enough to test everything on, whose windows are seen."""
    return config.model_copy(
        update={"width": 4, "encoders": (2,), "middle": 1, "decoders": (1,), "patch": (8, 8)}
    )


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^decoder(\d+)\.", r"decoders.\1."),  # DCPT's form
    (r"^middle_blks\.", "middle."),
    (r"\.norm1\.", ".norm."),
    (r"\.conv1\.", ".expand."),
    (r"\.conv2\.", ".spread."),
    (r"\.sca\.1\.", ".weigh."),
    (r"\.conv3\.", ".project."),
    (r"\.beta$", ".scale"),
    (r"\.norm2\.", ".channel_norm."),
    (r"\.conv4\.", ".channel_expand."),
    (r"\.conv5\.", ".channel_project."),
    (r"\.gamma$", ".channel_scale"),
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint, of one head or several, or of DCPT's code.

    Whether heads are combined and how large the patches were cannot be seen; heads are taken to be combined
    where there are several, and patches to be 256 × 256, as in all of the authors' options.

    Returns:
        Our config, state and steps, or None where the keys are not NAFNet's.
    """
    if "intro.weight" not in state or "middle_blks.0.sca.1.weight" not in state:
        return None
    ours = {
        key: value[0] if key.endswith("scale") else value
        for key, value in renamed_state(state, _RENAMES).items()
    }
    width, channels = ours["intro.weight"].shape[:2]
    count = ours["ending.weight"].shape[0] // channels
    config = NAFNetConfig(
        channels=channels,
        width=width,
        encoders=_depths("encoders", ours),
        middle=_depth("middle", ours),
        decoders=_depths("decoders", ours),
        heads=HeadsConfig(count=count, combined=count > 1),
    )
    return Official(config, ours, shown=() if config.heads.count > 1 else ("heads.combined",))


def _depth(part: str, state: Mapping[str, Tensor]) -> int:
    return sum(bool(re.fullmatch(rf"{re.escape(part)}\.\d+\.scale", key)) for key in state)


def _depths(part: str, state: Mapping[str, Tensor]) -> tuple[int, ...]:
    indices = {int(match[1]) for key in state if (match := re.match(rf"{part}\.(\d+)\.", key))}
    return tuple(_depth(f"{part}.{index}", state) for index in sorted(indices))
