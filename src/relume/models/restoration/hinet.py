"""HINet: two U-shaped networks in a row, in whose blocks half of the channels is normed for each picture.

Chen, Lu, Zhang, Chu, Chen, CVPR Workshops 2021, arXiv:2105.06086. `forward` follows figure 2, the blocks
figure 3; between the networks lie MPRNet's attention by the first picture and its cross-stage fusion
(arXiv:2102.02808).
Several pictures at once ("MHHINet") as in Liu et al., arXiv:2208.13029 (`nn.heads`).
Shapes: B batch, C picture channels, N width (2ˡ times the first after l halvings), H W, n heads, K pictures.

The first network's pictures are for training only; the second's are the result.

Departs from the authors' code:
- Pictures are continued mirrored to sides that can be halved, and cut again.
- A program of `torch.export` (the engine "compile") continues a side that one multiple holds to two of it;
  all else does as the authors do there.
- A feature of one pixel, which PyTorch's instance norm refuses, is normed to zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed_state
from relume.nn.heads import Heads, HeadsConfig, ManyHeaded
from relume.nn.padding import cut, mirrored_to_multiple

CARD = Card(
    name="hinet",
    title="HINet: Half Instance Normalization Network for Image Restoration",
    summary=(
        "Two U-shaped networks in a row for deblurring, denoising and deraining; the first one's picture "
        "guides the second. In their blocks half of the channels is normed, half keeps its scale. Also in "
        "the form that gives several pictures, from which the best is chosen."
    ),
    when="For motion blur on photos, where a GPU is at hand. NAFNet claims more with fewer parameters.",
    venue="CVPR Workshops 2021",
    task=Task.RESTORATION,
    arxiv="2105.06086",
    code="https://github.com/megvii-model/HINet",
    claims=tuple(
        Claim(variant="hinet", dataset="GoPro", metric=metric, value=value, protocol="sr-rgb")
        for metric, value in (("psnr", 32.71), ("ssim", 0.959))
    ),
)

_EPS = 1e-5


class HINetConfig(Config):
    """Settings of a HINet; the defaults are the authors' for deblurring.

    Attributes:
        channels: C of the pictures.
        width: N at full size.
        depth: sizes of features, one more than there are halvings.
        normed: at which of them, counted from 0 at full size, half of the channels is normed.
        slope: of the leaky ReLUs.
        heads: how many pictures it makes.
    """

    channels: PositiveInt = 3
    width: PositiveInt = 64
    depth: Annotated[int, Field(ge=2, le=7)] = 5
    normed: tuple[NonNegativeInt, ...] = (3, 4)
    slope: Annotated[float, Field(ge=0, lt=1)] = 0.2
    heads: HeadsConfig = HeadsConfig()

    @model_validator(mode="after")
    def _fits(self) -> HINetConfig:
        if any(level >= self.depth for level in self.normed):
            raise ValueError(f"normed names sizes 0 to {self.depth - 1}, got {max(self.normed)}")
        if self.normed and self.width % 2:
            raise ValueError(f"width must be even, so that half of it can be normed, got {self.width}")
        return self


class HalfNorm(nn.Module):
    """Instance norm of the first half of the channels; the others stay as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels // 2))
        self.bias = nn.Parameter(torch.zeros(channels // 2))

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        first = torch.instance_norm(
            first, self.weight, self.bias, None, None, True, 0.0, _EPS, torch.backends.cudnn.enabled
        )
        return torch.cat([first, second], 1)


class Block(nn.Module):
    """Two 3×3 convolutions with a skip, the first one's output half normed or not; and what came before."""

    def __init__(self, channels: int, width: int, *, normed: bool, fused: bool, slope: float) -> None:
        super().__init__()
        self.skip = nn.Conv2d(channels, width, 1)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = HalfNorm(width) if normed else nn.Identity()
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.slope = slope
        self.fuses = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2 if fused else 0))

    def forward(self, x: Tensor, earlier: Sequence[Tensor] = ()) -> Tensor:
        features = F.leaky_relu(self.norm(self.first(x)), self.slope)
        features = F.leaky_relu(self.second(features), self.slope) + self.skip(x)
        for fuse, other in zip(self.fuses, earlier, strict=True):
            features = features + fuse(other)
        return features


class UNet(nn.Module):
    """One of the two networks, between its first convolution and its last.

    Args:
        config: of the whole.
        fused: whether it takes in the features of an earlier one.
    """

    def __init__(self, config: HINetConfig, *, fused: bool) -> None:
        super().__init__()
        widths = [config.width * 2**level for level in range(config.depth)]
        last, slope = config.depth - 1, config.slope
        self.encoders = nn.ModuleList(
            Block(before, width, normed=level in config.normed, fused=fused and level < last, slope=slope)
            for level, (before, width) in enumerate(pairwise([config.width, *widths]))
        )
        self.halvings = nn.ModuleList(
            nn.Conv2d(width, width, 4, stride=2, padding=1, bias=False) for width in widths[:-1]
        )
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[-2::-1]
        )
        self.skips = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in widths[-2::-1])
        self.decoders = nn.ModuleList(
            Block(2 * width, width, normed=False, fused=False, slope=slope) for width in widths[-2::-1]
        )

    def forward(
        self, x: Tensor, earlier: Sequence[Sequence[Tensor]] | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return features at full size, and encoder's and decoder's features at each size but the smallest.

        Args:
            x: `B N H W`.
            earlier: what an earlier network gave as such.
        """
        encoded, decoded = [], []
        for level, (encoder, halve) in enumerate(zip(self.encoders, self.halvings, strict=False)):
            encoded.append(encoder(x, earlier[level] if earlier else ()))
            x = halve(encoded[-1])
        x = self.encoders[-1](x)
        for index, (double, skip, decoder) in enumerate(
            zip(self.doublings, self.skips, self.decoders, strict=True)
        ):
            x = decoder(torch.cat([double(x), skip(encoded[-1 - index])], 1))
            decoded.append(x)
        return x, list(zip(encoded, reversed(decoded), strict=True))


class Attention(nn.Module):
    """MPRNet's supervised attention: the first pictures say which features the second network gets."""

    def __init__(self, config: HINetConfig) -> None:
        super().__init__()
        pictures = config.channels * config.heads.count
        self.pass_on = nn.Conv2d(config.width, config.width, 3, padding=1)
        self.picture = nn.Conv2d(config.width, pictures, 3, padding=1)
        self.mask = nn.Conv2d(pictures, config.width, 3, padding=1)
        self.count = config.heads.count

    def forward(self, features: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features `B N H W`, and what the first pictures add to the image, `B nC H W`."""
        residual = self.picture(features)
        mask = torch.sigmoid(self.mask(residual + image.repeat(1, self.count, 1, 1)))
        return self.pass_on(features) * mask + features, residual


class HINet(ManyHeaded):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C H W`, any H and W from 1 up."""

    def __init__(self, config: HINetConfig) -> None:
        super().__init__()
        self.config: HINetConfig = config
        self.intros = nn.ModuleList(nn.Conv2d(config.channels, config.width, 3, padding=1) for _ in range(2))
        self.first = UNet(config, fused=False)
        self.attention = Attention(config)
        self.first_heads = Heads(config.heads)
        self.join = nn.Conv2d(2 * config.width, config.width, 1)
        self.second = UNet(config, fused=True)
        self.ending = nn.Conv2d(config.width, config.channels * config.heads.count, 3, padding=1)
        self.heads = Heads(config.heads)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out of the same size; norms make the reach unbounded."""
        return Contract(scale=1, channels=self.config.channels, halo=None)

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return all pictures of both networks, each `B K C H W`."""
        image = mirrored_to_multiple(x, 2 ** (self.config.depth - 1))
        features, earlier = self.first(self.intros[0](image))
        features, first = self.attention(features, image)
        features = self.join(torch.cat([self.intros[1](image), features], 1))
        features, _ = self.second(features, earlier)
        return (
            self.first_heads(cut(first, x), x),
            self.heads(cut(self.ending(features), x), x),
        )


_FOUR = HeadsConfig(count=4, combined=True)

VARIANTS = {
    "hinet": Variant(HINetConfig(), parameters=88_668_806),
    "mhhinet": Variant(HINetConfig(heads=_FOUR), parameters=88_684_376),
}

NETWORK = HINet
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"relu_slope": "slope", "combinate_heads": "heads.combined"}
"""Authors' constructor arguments that their checkpoints do not show, and our names for them."""


def tiny(config: HINetConfig) -> HINetConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"width": 4, "depth": 2, "normed": (1,)})


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"_path_1\.", "_path.first."),
    (r"_path_2\.", "_path.second."),
    (r"^skip_conv_1\.", "first.skips."),
    (r"^skip_conv_2\.", "second.skips."),
    (r"^down_path\.(\w+)\.(\d+)\.downsample\.", r"\1.halvings.\2."),
    (r"^up_path\.(\w+)\.(\d+)\.up\.", r"\1.doublings.\2."),
    (r"^down_path\.(\w+)\.", r"\1.encoders."),
    (r"^up_path\.(\w+)\.(\d+)\.conv_block\.", r"\1.decoders.\2."),
    (r"\.identity\.", ".skip."),
    (r"\.conv_1\.", ".first."),
    (r"\.conv_2\.", ".second."),
    (r"\.csff_enc\.", ".fuses.0."),
    (r"\.csff_dec\.", ".fuses.1."),
    (r"^conv_01\.", "intros.0."),
    (r"^conv_02\.", "intros.1."),
    (r"^sam12\.conv1\.", "attention.pass_on."),
    (r"^sam12\.conv2\.", "attention.picture."),
    (r"^sam12\.conv3\.", "attention.mask."),
    (r"^cat12\.", "join."),
    (r"^last\.", "ending."),
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint, of one head or several.

    Whether heads are combined cannot be seen and is taken to be so where there are several, as in the
    authors' options; the slope is taken to be 0.2.

    Returns:
        Our config, state and steps, or None where the keys are not HINet's.
    """
    if "sam12.conv1.weight" not in state or "down_path_1.0.identity.weight" not in state:
        return None
    ours = renamed_state(state, _RENAMES)
    width, channels = ours["intros.0.weight"].shape[:2]
    depth = sum(re.fullmatch(r"first\.encoders\.\d+\.skip\.weight", key) is not None for key in ours)
    heads = ours["ending.weight"].shape[0] // channels
    config = HINetConfig(
        channels=channels,
        width=width,
        depth=depth,
        normed=tuple(level for level in range(depth) if f"first.encoders.{level}.norm.weight" in ours),
        heads=HeadsConfig(count=heads, combined=heads > 1),
    )
    return Official(config, ours, shown=() if config.heads.count > 1 else ("heads.combined",))
