"""EDSR: residual blocks of two convolutions, without batch norm, and many channels.

Lim, Son, Kim, Nah, Lee, CVPR Workshops 2017, arXiv:1707.02921. `forward` follows figure 3, the blocks figure
2(c), the upsampler's steps the figure of the scales: a 3×3 convolution, residual blocks with a long skip,
convolutions with pixel shuffles, one more convolution.

Shapes: B batch, C picture channels, N width, H W low resolution, s scale.

    block(x) = x + r · W₂ relu(W₁ x)          r: what the residual is weighed by

Two published layouts: the authors' own and BasicSR's. Departs from both:
- The mean colour is a constant, which no checkpoint of BasicSR's holds; the authors' hold it as a 1×1
  convolution that is not trained, from which the constant and the range of values are read.
- Inside, values are in 0..255, as theirs (`image_range`); outside in 0..1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.nn.colour import RGB_MEAN
from relume.nn.network import Network, reach
from relume.nn.upsample import reach_through_steps, step_factors

_SETS = ("Set5", "Set14", "B100", "Urban100")
# Table 4, without self-ensemble; the paper has none of these for the baseline.
_FIGURES = {
    "edsr-x2": (38.11, 33.92, 32.32, 32.93),
    "edsr-x3": (34.65, 30.52, 29.25, 28.80),
    "edsr-x4": (32.46, 28.80, 27.71, 26.64),
}

CARD = Card(
    name="edsr",
    title="Enhanced Deep Residual Networks for Single Image Super-Resolution",
    summary=(
        "The residual network that left batch norm out and grew wide. It won the NTIRE 2017 challenge, and "
        "its baseline has been the yardstick of light networks since."
    ),
    when=(
        "When a large network of plain convolutions is wanted, or, the baseline, a middling one, to compare "
        "with."
    ),
    venue="CVPR Workshops 2017",
    task=Task.SUPER_RESOLUTION,
    arxiv="1707.02921",
    code="https://github.com/sanghyun-son/EDSR-PyTorch",
    claims=tuple(
        Claim(variant=variant, dataset=dataset, metric="psnr", value=value)
        for variant, figures in _FIGURES.items()
        for dataset, value in zip(_SETS, figures, strict=True)
    ),
)


class EDSRConfig(Config):
    """Settings of an EDSR; the defaults are the paper's baseline.

    Attributes:
        scale: s; 3, or a power of 2.
        channels: C.
        width: N.
        depth: residual blocks.
        residual_scale: r.
        image_range: factor on the centred input.
        mean: colour that is subtracted from the input.
    """

    scale: PositiveInt = 4
    channels: PositiveInt = 3
    width: PositiveInt = 64
    depth: PositiveInt = 16
    residual_scale: PositiveFloat = 1.0
    image_range: PositiveFloat = 255.0
    mean: tuple[float, ...] = RGB_MEAN

    @model_validator(mode="after")
    def _fits(self) -> EDSRConfig:
        if len(self.mean) != self.channels:
            raise ValueError(
                f"mean needs a value for each of {self.channels} channels, it has {len(self.mean)}"
            )
        step_factors(self.scale)
        return self


class Block(nn.Module):
    """Two convolutions with a ReLU between, weighed, and a skip."""

    def __init__(self, config: EDSRConfig) -> None:
        super().__init__()
        self.residual_scale = config.residual_scale
        self.first = nn.Conv2d(config.width, config.width, 3, padding=1)
        self.second = nn.Conv2d(config.width, config.width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x))) * self.residual_scale


class EDSR(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: EDSRConfig) -> None:
        super().__init__()
        self.config: EDSRConfig = config
        width = config.width
        self.factors = step_factors(config.scale)
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.mean: Tensor
        self.shallow = nn.Conv2d(config.channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.fuse = nn.Conv2d(width, width, 3, padding=1)
        self.steps_up = nn.ModuleList(
            nn.Conv2d(width, width * factor**2, 3, padding=1) for factor in self.factors
        )
        self.last = nn.Conv2d(width, config.channels, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large."""
        trunk = reach(self.shallow) + reach(self.blocks) + reach(self.fuse)
        halo = trunk + reach_through_steps(reach(self.last), factors=self.factors, each=1)
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=halo)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shallow((x - self.mean) * self.config.image_range)  # B N H W
        x = x + self.fuse(self.blocks(x))
        for step, factor in zip(self.steps_up, self.factors, strict=True):
            x = F.pixel_shuffle(step(x), factor)
        return self.last(x) / self.config.image_range + self.mean  # B C sH sW


_LARGE: dict[str, object] = {"width": 256, "depth": 32, "residual_scale": 0.1}

VARIANTS = {
    name: Variant(EDSRConfig.parse(settings, where=name), parameters)
    for name, settings, parameters in (
        ("edsr-baseline-x2", {"scale": 2}, 1_369_859),
        ("edsr-baseline-x3", {"scale": 3}, 1_554_499),
        ("edsr-baseline-x4", {"scale": 4}, 1_517_571),
        ("edsr-x2", {"scale": 2, **_LARGE}, 40_729_603),
        ("edsr-x3", {"scale": 3, **_LARGE}, 43_680_003),
        ("edsr-x4", {"scale": 4, **_LARGE}, 43_089_923),
    )
}

NETWORK = EDSR
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"res_scale": "residual_scale", "img_range": "image_range", "rgb_mean": "mean"}
"""Authors' constructor arguments that their checkpoints do not show, and our names for them."""


def tiny(config: EDSRConfig) -> EDSRConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"width": 4, "depth": 2})


# Their names and ours: BasicSR's layout, and the authors' own, whose body ends with what fuses.
_RENAMES = (
    (r"conv_first", "shallow"),
    (r"body\.(\d+)\.conv1", r"blocks.\1.first"),
    (r"body\.(\d+)\.conv2", r"blocks.\1.second"),
    (r"conv_after_body", "fuse"),
    (r"upsample\.(\d+)", r"steps_up.\1"),
    (r"conv_last", "last"),
)
_OWN_RENAMES = (
    (r"head\.0", "shallow"),
    (r"body\.(\d+)\.body\.0", r"blocks.\1.first"),
    (r"body\.(\d+)\.body\.2", r"blocks.\1.second"),
    (r"body\.\d+", "fuse"),
    (r"tail\.0\.(\d+)", r"steps_up.\1"),
    (r"tail\.1", "last"),
)
_WIDE = 256


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise a checkpoint of the authors' code or of BasicSR's.

    What residuals are weighed by cannot be seen; it is taken to be 0.1 for 256 channels and more, else 1, as
    in all of the authors' options. BasicSR's does not show the range of values and the mean colour either.

    Returns:
        Our config, state and steps, or None where the keys are not EDSR's.
    """
    if "body.0.conv1.weight" in state and "conv_after_body.weight" in state:
        renames = _RENAMES
    elif "body.0.body.0.weight" in state and "tail.1.weight" in state:
        renames = _OWN_RENAMES
    else:
        return None
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, _, part = key.rpartition(".")
        if layer in ("sub_mean", "add_mean"):
            continue
        name = _renamed(layer, renames)
        if name is None:
            return None  # a relative, such as RCAN
        ours[f"{name}.{part}"] = value
    width, channels = ours["shallow.weight"].shape[:2]
    widened = ours["steps_up.0.weight"].shape[0] // width if "steps_up.0.weight" in ours else 1
    steps = sum(key.startswith("steps_up.") and key.endswith(".weight") for key in ours)
    config = EDSRConfig(
        scale=3 if widened == 9 else 2**steps,
        channels=channels,
        width=width,
        depth=1 + max(int(key.split(".")[1]) for key in ours if key.startswith("blocks.")),
        residual_scale=0.1 if width >= _WIDE else 1.0,
        mean=RGB_MEAN if channels == 3 else (0.0,) * channels,
    )
    shown = _shown_by_mean(state)
    return Official(config.override(shown, where="an EDSR of its authors"), ours, shown=tuple(shown))


def _renamed(layer: str, renames: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, ours in renames:
        if match := re.fullmatch(pattern, layer):
            name = match.expand(ours)
            # A pixel shuffle, without weights, stands behind each step's convolution.
            return f"steps_up.{int(match[1]) // 2}" if name.startswith("steps_up.") else name
    return None


def _shown_by_mean(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the settings that the authors' convolution shows, which subtracts the mean colour."""
    bias = state.get("sub_mean.bias")
    if bias is None:
        return {}
    image_range = 255.0 if bias.abs().max() > 1 else 1.0
    return {"image_range": image_range, "mean": tuple((-bias.double() / image_range).tolist())}
