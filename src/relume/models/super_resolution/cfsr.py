"""CFSR: a ConvFormer that mixes features by large depthwise kernels instead of attention.

Wu, Jiang, Jiang, Liu, IEEE TIP 2024, arXiv:2401.05633. `forward` follows the
paper's overview figure: a 3×3 convolution, stages of ConvFormer layers, a norm
and a 3×3 convolution with a long skip, then one convolution and a pixel shuffle.

Shapes: B batch, C picture channels, N width, rN hidden width (r: ratio),
H W low resolution, s scale.

Two forms. The training form has, beside each 3×3 depthwise convolution of the
feed-forward network, three branches with fixed edge masks (Sobel-x, Sobel-y,
Laplacian) and learnt strengths. All four are linear in the same input, so they
are one convolution with a summed kernel: that is the re-parameterised form,
exact but for rounding, and the one that the paper's parameter counts mean.

Departs from the paper and its code:
- The training form sums the kernels before convolving, instead of convolving
  four times and summing the results; outputs and gradients are the same and a
  training step costs what the re-parameterised form costs.
- The authors' code has two masks that are off by one index: their Sobel-x is
  [[0, 1, -1], [2, 0, -2], [1, 0, -1]] and their Laplacian has its upper
  neighbour in the corner, [[1, 0, 0], [1, -4, 1], [0, 1, 0]]. `edge_masks`
  chooses between those and the textbook's; a checkpoint in training form brings
  its own masks, which are used as they are. Our own training uses the textbook's:
  four pairs of short runs (x2, 300 steps, the same seed in both) differed on Set5
  by +0.09, -0.03, +0.04 and +0.04 dB in favour of the authors', which is less than
  the 0.1 dB by which seeds differ, and the free kernel can make up any difference.
- The mean that is subtracted from the input is a buffer that no checkpoint
  holds, as in the authors' code.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed
from relume.nn.convformer import FoldedConvFormer, FoldedFeedForward, FoldedMixer
from relume.nn.depthwise import LargeDepthwiseConv2d
from relume.nn.edges import EdgeConv
from relume.nn.folding import before_scale, behind_norm, with_skip
from relume.nn.network import Network, reach
from relume.nn.norms import LayerNorm2d
from relume.nn.surgery import reparameterise
from relume.nn.upsample import respread_subpixels

CARD = Card(
    name="cfsr",
    title="Transforming Image Super-Resolution: A ConvFormer-based Efficient Approach",
    summary=(
        "An efficient super-resolution network. Depthwise 9×9 convolutions gate the features in place of "
        "self-attention, and an edge-preserving feed-forward network keeps high frequencies with Sobel and "
        "Laplacian branches that fold away after training."
    ),
    when=(
        "The one to begin with: small, quick on CPUs by kernels of its own, and with weights for clean "
        "photos (x2, x3, x4) and for noisy, blurred or compressed ones (blind)."
    ),
    venue="IEEE Transactions on Image Processing, 2024",
    task=Task.SUPER_RESOLUTION,
    arxiv="2401.05633",
    code="https://github.com/Aitical/CFSR",
    claims=(
        Claim(variant="cfsr-x2", dataset="Set5", metric="psnr", value=38.07),
        Claim(variant="cfsr-x3", dataset="Set5", metric="psnr", value=34.50),
        *(
            Claim(variant="cfsr-x4", dataset=dataset, metric=metric, value=value)
            for dataset, psnr, ssim in (
                ("Set5", 32.33, 0.8964),
                ("Set14", 28.73, 0.7842),
                ("B100", 27.63, 0.7381),
                ("Urban100", 26.21, 0.7897),
                ("Manga109", 30.72, 0.9111),
            )
            for metric, value in (("psnr", psnr), ("ssim", ssim))
        ),
    ),
)

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, which the network subtracts from its input."""


class CFSRConfig(Config):
    """Settings of a CFSR; the defaults are the paper's light network.

    Attributes:
        scale: s; 1 gives the same-size network that adds its result to the input.
        channels: C of the pictures.
        width: N ("embed_dim").
        depths: ConvFormer layers in each stage.
        kernel_size: side of the large depthwise kernel ("dw_size"), odd.
        ratio: r, hidden width of the feed-forward network over N ("mlp_ratio").
        image_range: factor on the centred input ("img_range").
        reconstruction: "pixel_shuffle" enlarges; "residual" (scale 1 only) adds to the input.
        edge_masks: masks of the training form's edge branches, see the file's head.
    """

    scale: PositiveInt = 4
    channels: PositiveInt = 3
    width: PositiveInt = 48
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (6, 6)
    kernel_size: PositiveInt = 9
    ratio: PositiveInt = 2
    image_range: PositiveFloat = 1.0
    reconstruction: Literal["pixel_shuffle", "residual"] = "pixel_shuffle"
    edge_masks: Literal["textbook", "authors"] = "textbook"

    @model_validator(mode="after")
    def _fits(self) -> CFSRConfig:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the picture's size, got {self.kernel_size}")
        if self.reconstruction == "residual" and self.scale != 1:
            raise ValueError(
                f"reconstruction 'residual' keeps the size, so scale must be 1, got {self.scale}"
            )
        return self


class LargeKernelMixer(nn.Module):
    """Feature mixer in place of attention: V gated by a k×k depthwise look around, Z = W₃(A ⊙ V)."""

    def __init__(self, width: int, *, kernel_size: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(width)
        self.query = nn.Conv2d(width, width, 1)
        self.spread = LargeDepthwiseConv2d(width, kernel_size)
        self.value = nn.Conv2d(width, width, 1)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        attention = self.spread(F.gelu(self.query(x)))
        return self.project(attention * self.value(x))


class EdgePreservingFeedForward(nn.Module):
    """Feed-forward network with a local, edge-aware branch between its two 1×1 convolutions (EFN)."""

    def __init__(self, width: int, *, ratio: int, masks: str) -> None:
        super().__init__()
        self.norm = LayerNorm2d(width)
        self.expand = nn.Conv2d(width, width * ratio, 1)
        self.local = EdgeConv(width * ratio, masks=masks)
        self.contract = nn.Conv2d(width * ratio, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.expand(self.norm(x)))  # B rN H W
        x = x + F.gelu(self.local(x))
        return self.contract(x)  # B N H W


class ConvFormerLayer(nn.Module):
    """Mixer, then feed-forward network, each with a skip and a learnt scale for each channel."""

    def __init__(self, config: CFSRConfig) -> None:
        super().__init__()
        self.mixer = LargeKernelMixer(config.width, kernel_size=config.kernel_size)
        self.feed_forward = EdgePreservingFeedForward(
            config.width, ratio=config.ratio, masks=config.edge_masks
        )
        self.mixer_scale = nn.Parameter(torch.full((config.width,), 1e-6))
        self.feed_forward_scale = nn.Parameter(torch.full((config.width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer_scale[:, None, None] * self.mixer(x)
        return x + self.feed_forward_scale[:, None, None] * self.feed_forward(x)

    def folded(self) -> tuple[FoldedMixer, FoldedFeedForward]:
        """Return the two halves of a re-parameterised layer, each folded with its norm, scale and skip."""
        mixer, feed_forward = self.mixer, self.feed_forward
        assert isinstance(feed_forward.local, nn.Conv2d)
        return (
            FoldedMixer(
                query=behind_norm(mixer.norm, mixer.query),
                spread=mixer.spread,
                value=behind_norm(mixer.norm, mixer.value),
                project=before_scale(mixer.project, self.mixer_scale),
                eps=mixer.norm.eps,
            ),
            FoldedFeedForward(
                expand=behind_norm(feed_forward.norm, feed_forward.expand),
                local=feed_forward.local,
                contract=before_scale(feed_forward.contract, self.feed_forward_scale),
                eps=feed_forward.norm.eps,
            ),
        )


class Stage(nn.Module):
    """ConvFormer layers in a row, closed by a 1×1 convolution with a skip."""

    def __init__(self, depth: int, config: CFSRConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ConvFormerLayer(config) for _ in range(depth)))
        self.close = nn.Conv2d(config.width, config.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        return self.close(x) + x


class CFSR(Network):
    """The whole network, in its training form until `nn.surgery` re-parameterises it.

    Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up.
    """

    def __init__(self, config: CFSRConfig) -> None:
        super().__init__()
        self.config: CFSRConfig = config
        mean = RGB_MEAN if config.channels == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.mean: Tensor
        self.shallow = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.stages = nn.Sequential(*(Stage(depth, config) for depth in config.depths))
        self.norm = LayerNorm2d(config.width)
        self.fuse = nn.Conv2d(config.width, config.width, 3, padding=1)
        self.reconstruct = nn.Conv2d(config.width, config.channels * config.scale**2, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large."""
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=reach(self))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) * self.config.image_range
        # Depthwise convolutions and the norm run fastest, forward and backward, with channels last.
        shallow = self.shallow(x.contiguous(memory_format=torch.channels_last))  # B N H W
        deep = self.fuse(self.norm(self.stages(shallow))) + shallow
        output = F.pixel_shuffle(self.reconstruct(deep), self.config.scale)  # B C sH sW
        if self.config.reconstruction == "residual":
            output = output + x
        return output / self.config.image_range + self.mean

    def folded(self) -> nn.Module:
        """Return the same function with adjacent linear layers folded; itself where it adds to its input."""
        config = self.config
        if config.reconstruction == "residual" or config.image_range != 1:
            return self
        merged = copy.deepcopy(self).requires_grad_(False)
        reparameterise(merged)
        layers: list[nn.Module] = []
        for stage in merged.stages:
            assert isinstance(stage, Stage)
            for layer in stage.layers:
                assert isinstance(layer, ConvFormerLayer)
                layers += layer.folded()
            layers.append(with_skip(stage.close))
        return FoldedConvFormer(
            mean=merged.mean, shallow=merged.shallow, layers=layers, norm=merged.norm, fuse=merged.fuse,
            reconstruct=merged.reconstruct, scale=config.scale,
        ).eval()  # fmt: skip

    def start_from(self, source: Network) -> list[str]:
        """Take over another CFSR's trunk and, where the scale differs, its nearest sub-pixels."""
        left = super().start_from(source)
        if isinstance(source, CFSR) and "reconstruct.weight" in left:
            scales = {"old": source.config.scale, "new": self.config.scale}
            if respread_subpixels(source.reconstruct, self.reconstruct, **scales):
                left = [name for name in left if not name.startswith("reconstruct.")]
        return left


VARIANTS = {
    f"cfsr-x{scale}{kind}": Variant(CFSRConfig(scale=scale), parameters=parameters, steps=steps)
    for kind, steps, sizes in (
        ("", ("reparameterise",), {2: 291_324, 3: 297_819, 4: 306_912}),
        # For pictures of unknown damage, which it cleans as well.
        ("-blind", ("reparameterise",), {2: 291_324, 4: 306_912}),
        # With texture that a discriminator asks for: two kernels a layer, which the strength mixes.
        ("-photo", ("reparameterise", "tunable"), {2: 579_630, 4: 610_806}),
    )
    for scale, parameters in sizes.items()
}

NETWORK = CFSR
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"img_range": "image_range"}
"""Authors' constructor arguments that their checkpoints do not show, and our names for them."""


def tiny(config: CFSRConfig) -> CFSRConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"width": 8, "depths": (2, 1), "kernel_size": 5})


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^conv_first\.", "shallow."),
    (r"^conv_after_body\.", "fuse."),
    (r"^(conv_last|upsample\.0)\.", "reconstruct."),
    (r"^layers\.(\d+)\.conv\.", r"stages.\1.close."),
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1.layers."),
    (r"\.layer_scale_1$", ".mixer_scale"),
    (r"\.layer_scale_2$", ".feed_forward_scale"),
    (r"\.attn\.a\.0\.", ".mixer.query."),
    (r"\.attn\.a\.2\.lkb_reparam\.", ".mixer.spread."),
    (r"\.attn\.v\.", ".mixer.value."),
    (r"\.attn\.proj\.", ".mixer.project."),
    (r"\.attn\.norm\.", ".mixer.norm."),
    (r"\.mlp\.norm\.", ".feed_forward.norm."),
    (r"\.mlp\.fc1\.", ".feed_forward.expand."),
    (r"\.mlp\.pos\.", ".feed_forward.local."),
    (r"\.mlp\.fc2\.", ".feed_forward.contract."),
)
_BRANCHES = ("sobel_x", "sobel_y", "laplacian")


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint, merged (as released) or in training form.

    `image_range` cannot be read off a checkpoint and is taken to be 1, as in all of the authors' options.

    Returns:
        Our config, state and steps, or None where the keys are not CFSR's.
    """
    first = "layers.0.blocks.0."
    if f"{first}attn.a.2.lkb_reparam.weight" not in state or f"{first}mlp.pos.weight" not in state:
        return None
    width, channels = state["conv_first.weight"].shape[:2]
    indices = [match.groups() for key in state if (match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", key))]
    depths = [0] * (1 + max(int(stage) for stage, _ in indices))
    for stage, layer in indices:
        depths[int(stage)] = max(depths[int(stage)], int(layer) + 1)
    enlarges = "upsample.0.weight" in state
    last = state["upsample.0.weight" if enlarges else "conv_last.weight"]
    in_training_form = f"{first}mlp.mask_sobel_x" in state
    config = CFSRConfig(
        scale=round((last.shape[0] / channels) ** 0.5),
        channels=channels,
        width=width,
        depths=tuple(depths),
        kernel_size=state[f"{first}attn.a.2.lkb_reparam.weight"].shape[-1],
        ratio=state[f"{first}mlp.fc1.weight"].shape[0] // width,
        reconstruction="pixel_shuffle" if enlarges else "residual",
        edge_masks="authors" if in_training_form else "textbook",
    )
    branches = re.compile(r"\.((scale|mask)_(sobel_[xy]|laplacian)|(sobel_[xy]|laplacian)_bias)$")
    ours = {renamed(key, _RENAMES): value for key, value in state.items() if not branches.search(key)}
    if not in_training_form:
        return Official(config, ours, steps=("reparameterise",))
    for prefix in [key.removesuffix("mask_sobel_x") for key in state if key.endswith(".mask_sobel_x")]:
        local = renamed(f"{prefix}pos.", _RENAMES)
        ours[f"{local}conv.weight"] = ours.pop(f"{local}weight")
        ours[f"{local}conv.bias"] = ours.pop(f"{local}bias")
        ours[f"{local}masks"] = torch.stack([state[f"{prefix}mask_{name}"] for name in _BRANCHES])
        ours[f"{local}strengths"] = torch.stack([state[f"{prefix}scale_{name}"] for name in _BRANCHES])
        ours[f"{local}biases"] = torch.stack([state[f"{prefix}{name}_bias"] for name in _BRANCHES])
    return Official(config, ours)
