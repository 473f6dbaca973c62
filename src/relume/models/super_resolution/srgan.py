"""SRGAN: a residual network of batch norms (SRResNet), taught by a discriminator to draw texture.

Ledig, Theis, Huszár, Caballero, Cunningham, Acosta, Aitken, Tejani, Totz, Wang, Shi, CVPR 2017,
arXiv:1609.04802. `forward` follows the generator of figure 4: a 9×9 convolution, residual blocks with a long
skip, convolutions with pixel shuffles, a 9×9 convolution. The discriminator of the same figure is in
`nn.discriminators.srgan`, its losses are in `train.objectives.adversarial`.

Shapes: B batch, C picture channels, N width, H W low resolution, s scale.

    block(x) = x + norm(W₂ prelu(norm(W₁ x)))

Three published forms, which the settings tell apart:
- Lornatang's, of the paper's 16 blocks: the convolutions before batch norms have no bias, what comes out is
  clamped to 0..1;
- leftthomas', of five blocks: all convolutions have a bias, what comes out is (tanh + 1) / 2;
- leftthomas' as he released its weights: the trunk's last convolution has a PReLU in place of the batch norm.

Departs from these: "clamp" does so in use only; in training it would give no gradient where a pixel is beyond
the range.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.nn.network import Network, reach
from relume.nn.normed import NormedConv
from relume.nn.surgery import reparameterise
from relume.nn.upsample import reach_through_steps, step_factors

CARD = Card(
    name="srgan",
    title="Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network",
    summary=(
        "The first network that drew the texture of photos enlarged by 4 in place of a blur: SRResNet, a "
        "residual network with batch norm, taught on by a discriminator, which makes it SRGAN."
    ),
    when=(
        "To draw texture where it is lost, by a small network; what it draws is likely, not true. RRDBNet "
        "is the larger one for that."
    ),
    venue="CVPR 2017",
    task=Task.SUPER_RESOLUTION,
    arxiv="1609.04802",
    code="https://github.com/Lornatang/SRGAN-PyTorch",
    claims=tuple(
        Claim(variant=variant, dataset=dataset, metric=metric, value=value)
        for variant, dataset, psnr, ssim in (
            ("srresnet-x4", "Set5", 32.05, 0.9019),
            ("srresnet-x4", "Set14", 28.49, 0.8184),
            ("srresnet-x4", "B100", 27.58, 0.7620),
            ("srgan-x4", "Set5", 29.40, 0.8472),
            ("srgan-x4", "Set14", 26.02, 0.7397),
            ("srgan-x4", "B100", 25.16, 0.6688),
        )
        for metric, value in (("psnr", psnr), ("ssim", ssim))
    ),
)


class SRGANConfig(Config):
    """Settings of an SRResNet, SRGAN's generator; the defaults are the paper's.

    Attributes:
        scale: s, a power of 2.
        channels: C.
        width: N.
        depth: residual blocks.
        bias: whether convolutions before a batch norm have one.
        ending: what follows the trunk's last convolution, "norm" or "prelu".
        output: how values are kept within 0..1, see the file's head.
    """

    scale: PositiveInt = 4
    channels: PositiveInt = 3
    width: PositiveInt = 64
    depth: PositiveInt = 16
    bias: bool = False
    ending: Literal["norm", "prelu"] = "norm"
    output: Literal["clamp", "tanh"] = "clamp"

    @model_validator(mode="after")
    def _fits(self) -> SRGANConfig:
        if self.scale & (self.scale - 1):
            raise ValueError(f"it enlarges by doublings, so scale must be a power of 2, not {self.scale}")
        return self


class Block(nn.Module):
    """Two convolutions with batch norms, a PReLU between, and a skip."""

    def __init__(self, config: SRGANConfig) -> None:
        super().__init__()
        self.first = NormedConv(config.width, config.width, bias=config.bias)
        self.activate = nn.PReLU()
        self.second = NormedConv(config.width, config.width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.activate(self.first(x)))


class Doubling(nn.Sequential):
    """A convolution, a pixel shuffle by 2, a PReLU."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())


class SRGAN(Network):
    """The whole generator. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: SRGANConfig) -> None:
        super().__init__()
        self.config: SRGANConfig = config
        width = config.width
        self.factors = step_factors(config.scale)
        self.shallow = nn.Sequential(nn.Conv2d(config.channels, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.fuse: nn.Module
        if config.ending == "norm":
            self.fuse = NormedConv(width, width, bias=config.bias)
        else:
            self.fuse = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.PReLU())
        self.steps_up = nn.Sequential(*(Doubling(width) for _ in self.factors))
        self.last = nn.Conv2d(width, config.channels, 9, padding=4)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large."""
        trunk = reach(self.shallow) + reach(self.blocks) + reach(self.fuse)
        halo = trunk + reach_through_steps(reach(self.last), factors=self.factors, each=1)
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=halo)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow(x)  # B N H W
        deep = shallow + self.fuse(self.blocks(shallow))
        output = self.last(self.steps_up(deep))  # B C sH sW
        if self.config.output == "tanh":
            return (torch.tanh(output) + 1) / 2
        return output if self.training else output.clamp(0, 1)

    def folded(self) -> nn.Module:
        """Return the same function with each batch norm within the convolution before it."""
        merged = copy.deepcopy(self).requires_grad_(False)
        reparameterise(merged)
        return merged.eval()


_FIVE: dict[str, object] = {"depth": 5, "bias": True, "output": "tanh"}

VARIANTS = {
    name: Variant(SRGANConfig.parse(settings, where=name), parameters)
    for name, settings, parameters in (
        # One network, taught by the mean squared error, and then by a discriminator too.
        ("srresnet-x2", {"scale": 2}, 1_399_637),
        ("srresnet-x4", {"scale": 4}, 1_547_350),
        ("srresnet-x8", {"scale": 8}, 1_695_063),
        ("srgan-x4", {"scale": 4}, 1_547_350),
        ("srgan-five-x2", {"scale": 2, "ending": "prelu", **_FIVE}, 586_379),
        ("srgan-five-x4", {"scale": 4, "ending": "prelu", **_FIVE}, 734_092),
        ("srgan-five-x8", {"scale": 8, "ending": "prelu", **_FIVE}, 881_805),
        ("srgan-five-norm-x2", {"scale": 2, **_FIVE}, 586_506),
        ("srgan-five-norm-x4", {"scale": 4, **_FIVE}, 734_219),
        ("srgan-five-norm-x8", {"scale": 8, **_FIVE}, 881_932),
    )
}

NETWORK = SRGAN
"""What a variant's config builds."""

OFFICIAL_SETTINGS: dict[str, str] = {}
"""Authors' constructor arguments that their checkpoints do not show: none."""

EXEMPTIONS = {
    "halo": "clamping hides what random weights do beyond 0..1; tests/models/test_srgan.py tries it within"
}


def tiny(config: SRGANConfig) -> SRGANConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"width": 4, "depth": 1})


# Names in Lornatang's code, of now and of 2022, and ours.
_LORNATANG = (
    (r"conv(?:_block)?1\.", "shallow."),
    (r"trunk\.(\d+)\.rcb\.0\.", r"blocks.\1.first.conv."),
    (r"trunk\.(\d+)\.rcb\.1\.", r"blocks.\1.first.norm."),
    (r"trunk\.(\d+)\.rcb\.2\.", r"blocks.\1.activate."),
    (r"trunk\.(\d+)\.rcb\.3\.", r"blocks.\1.second.conv."),
    (r"trunk\.(\d+)\.rcb\.4\.", r"blocks.\1.second.norm."),
    (r"conv(?:_block)?2\.0\.", "fuse.conv."),
    (r"conv(?:_block)?2\.1\.", "fuse.norm."),
    (r"upsampling\.(\d+)\.upsample_block\.", r"steps_up.\1."),
    (r"conv(?:_block)?3\.", "last."),
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise a generator of Lornatang's code or of leftthomas', as it is or as its weights were released.

    Returns:
        Our config, state and steps, or None where the keys are not SRGAN's.
    """
    renames: tuple[tuple[str, str], ...]
    if "trunk.0.rcb.0.weight" in state:
        renames, output = _LORNATANG, "clamp"
    elif "block1.0.weight" in state and "block2.bn1.weight" in state:
        renames, output = _leftthomas(state), "tanh"
    else:
        return None
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _renamed(key, renames)
        if name is None:
            return None
        ours[name] = value
    width, channels = ours["shallow.0.weight"].shape[:2]
    settings = {
        "scale": 2 ** sum(bool(re.fullmatch(r"steps_up\.\d+\.0\.weight", key)) for key in ours),
        "channels": channels,
        "width": width,
        "depth": 1 + max(int(key.split(".")[1]) for key in ours if key.startswith("blocks.")),
        "bias": "blocks.0.first.conv.bias" in ours,
        "ending": "norm" if "fuse.norm.weight" in ours else "prelu",
        "output": output,
    }
    return Official(SRGANConfig.parse(settings, where="an SRGAN of its authors"), ours)


def _renamed(key: str, renames: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, ours in renames:
        if match := re.match(pattern, key):
            return match.expand(ours) + key[match.end() :]
    return None


def _leftthomas(state: Mapping[str, Tensor]) -> tuple[tuple[str, str], ...]:
    """Return leftthomas' names, which number the blocks from the first convolution to the last, and ours."""
    named = re.compile(r"block(\d+)\.bn1\.weight")
    numbers = sorted(int(match[1]) for key in state if (match := named.fullmatch(key)))
    renames = [(r"block1\.", "shallow.")]
    for index, number in enumerate(numbers):
        block = rf"block{number}\."
        renames += [
            (rf"{block}{theirs}\.", f"blocks.{index}.{ours}.")
            for theirs, ours in (
                ("conv1", "first.conv"), ("bn1", "first.norm"), ("prelu", "activate"),
                ("conv2", "second.conv"), ("bn2", "second.norm"),
            )
        ]  # fmt: skip
    fuse, end = rf"block{numbers[-1] + 1}\.", rf"block{numbers[-1] + 2}\."
    normed = f"block{numbers[-1] + 1}.1.running_mean" in state
    doublings = sum(bool(re.fullmatch(rf"{end}\d+\.conv\.weight", key)) for key in state)
    names = (("0", "fuse.conv"), ("1", "fuse.norm")) if normed else (("0", "fuse.0"), ("1", "fuse.1"))
    return (
        *renames,
        *((rf"{fuse}{theirs}\.", f"{ours}.") for theirs, ours in names),
        (rf"{end}(\d+)\.conv\.", r"steps_up.\1.0."),
        (rf"{end}(\d+)\.prelu\.", r"steps_up.\1.2."),
        (rf"{end}{doublings}\.", "last."),
    )
