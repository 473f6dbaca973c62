"""DLGSANet: dynamic local attention by kernels made for each pixel, and sparse attention between channels.

Li, Pan, Tang, Dong, ICCV 2023, arXiv:2301.02031. `forward` follows figure 2: a 3×3 convolution, residual
groups (RHDTG) of hybrid blocks (HDTB), each a layer with dynamic local attention (MHDLSA) and one with sparse
global attention (SparseGSA), a convolution with a long skip, then one convolution and a pixel shuffle.

Shapes: B batch, C picture channels, N width, G kernels of each pixel, k their side, H W low resolution,
s scale.

    MHDLSA: W x'      x'[c, p] = Σ_δ K[g(c), δ, p] V[c, p + δ],   K = W₂ DWₖₓₖ W₁ V,   V = W₀ x
    SparseGSA: W relu(t · Q̂ K̂ᵀ) V, channels looking at channels, of rows of length 1

The contract has no halo. In use, attention between channels runs in windows of one or two patches of
training, which overlap and are averaged (`nn.local_windows`); where they lie depends on the picture's size.
In training it takes the whole patch.

Departs from the paper and its code:
- The authors' setting for the "heads" of MHDLSA is the number of channels that share a kernel: 6 of them.
- A checkpoint does not show the windows, which are taken to be the authors' for its scale: 96, 72, 48 for
  x2, x3, x4.
- `pattern` names the authors' ablations as well: "edge" has softmax in place of the ReLU, "idynamic" and
  "restormer" have one of the two layers only. All but "sparseedge" have windows of 48, whatever is set.
- `activation` does so, too: "gelu" and "sigmoid" stand in place of the ReLU of "sparseedge". A checkpoint
  shows neither it nor "edge".
- The authors' code has other reconstructions than the paper's: "shuffle" through `features` channels, and for
  pictures that keep their size one convolution, which is "direct" at scale 1.
- The kernels of all pixels are never laid out beside copies of their neighbourhoods: products are summed one
  place of the kernel after another, which the authors leave to a CUDA kernel of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Task, claims_of
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed_state
from relume.nn.colour import RGB_MEAN
from relume.nn.local_windows import over_windows
from relume.nn.network import Network
from relume.nn.norms import LayerNorm2d
from relume.nn.restormer import Attention, FeedForward, ratio_of
from relume.nn.upsample import SubPixels, official_subpixels, respread_subpixels

_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
# The paper's figures as the authors' page repeats them beside those of the weights that they trained anew.
_FIGURES = {
    "dlgsanet-tiny-x2": ((38.16, 0.9611), (33.92, 0.9202), (32.26, 0.9007), (32.82, 0.9343), (39.14, 0.9777)),
    "dlgsanet-tiny-x3": ((34.63, 0.9288), (30.57, 0.8459), (29.21, 0.8083), (28.69, 0.8630), (34.10, 0.9480)),
    "dlgsanet-tiny-x4": ((32.46, 0.8984), (28.79, 0.7861), (27.70, 0.7408), (26.55, 0.8002), (30.98, 0.9137)),
    "dlgsanet-light-x2": (
        (38.20, 0.9612),
        (33.89, 0.9203),
        (32.30, 0.9012),
        (32.94, 0.9355),
        (39.29, 0.9780),
    ),
    "dlgsanet-light-x3": (
        (34.70, 0.9295),
        (30.58, 0.8465),
        (29.24, 0.8089),
        (28.83, 0.8653),
        (34.16, 0.9483),
    ),
    "dlgsanet-light-x4": (
        (32.54, 0.8993),
        (28.84, 0.7871),
        (27.73, 0.7415),
        (26.66, 0.8033),
        (31.13, 0.9161),
    ),
}

CARD = Card(
    name="dlgsanet",
    title="DLGSANet: Lightweight Dynamic Local and Global Self-Attention Networks for Image Super-Resolution",
    summary=(
        "A light network that looks around by kernels which it makes for each pixel, and far by attention "
        "between channels that keeps positive likeness only. The paper claims results on a par with "
        "transformers of shifted windows at fewer parameters and operations."
    ),
    when=(
        "Where a light network near to transformers is wanted; tiny, light and the large one leave a choice "
        "of size."
    ),
    venue="ICCV 2023",
    task=Task.SUPER_RESOLUTION,
    arxiv="2301.02031",
    code="https://github.com/NeonLeexiang/DLGSANet",
    claims=claims_of(_FIGURES, _SETS),
)

_EDGE_WINDOW = 48
"""Side of the windows of every pattern but "sparseedge"."""


class DLGSANetConfig(Config):
    """Settings of a DLGSANet; the defaults are the paper's light network for x4.

    Attributes:
        scale: s.
        channels: C of the pictures.
        width: N ("dim").
        groups: residual groups.
        blocks: hybrid blocks in each group.
        pattern: layers of a block, see the file's head ("buildblock_type").
        kernel_size: k, side of the dynamic kernels, odd ("window_size").
        kernel_channels: neighbouring channels that share a kernel, of which N is a multiple
            ("idynamic_num_heads").
        heads: of the attention between channels, of which N is a multiple ("restormer_num_heads").
        local_feed_forward: after dynamic attention: "gated", or "plain", two 1×1 convolutions.
        global_feed_forward: likewise after attention between channels.
        local_ratio: hidden width over N of the feed-forward networks after dynamic attention.
        global_ratio: likewise after attention between channels.
        windowed: whether attention between channels runs in windows, in use ("tlc_flag").
        window: longest side of these windows, pixels ("tlc_kernel").
        activation: of the likeness between channels, where the pattern is "sparseedge".
        outer_norms: whether norms stand before the first group and after the last ("body_norm").
        reconstruction: "direct" by one convolution, or "shuffle", see the file's head ("upsampler").
        features: channels before the last convolution of "shuffle".
        image_range: factor on the centred input ("img_range").
    """

    scale: Literal[1, 2, 3, 4, 8] = 4
    channels: PositiveInt = 3
    width: Annotated[int, Field(ge=4)] = 48
    groups: PositiveInt = 4
    blocks: PositiveInt = 3
    pattern: Literal["sparseedge", "edge", "idynamic", "restormer"] = "sparseedge"
    kernel_size: PositiveInt = 7
    kernel_channels: PositiveInt = 6
    heads: PositiveInt = 6
    local_feed_forward: Literal["gated", "plain"] = "gated"
    global_feed_forward: Literal["gated", "plain"] = "gated"
    local_ratio: PositiveFloat = 2.0
    global_ratio: PositiveFloat = 2.0
    windowed: bool = True
    window: PositiveInt = 48
    activation: Literal["relu", "gelu", "sigmoid"] = "relu"
    outer_norms: bool = False
    reconstruction: Literal["direct", "shuffle"] = "direct"
    features: PositiveInt = 64
    image_range: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _fits(self) -> DLGSANetConfig:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the picture's size, got {self.kernel_size}")
        for name, without in (("kernel_channels", "restormer"), ("heads", "idynamic")):
            if self.pattern != without and self.width % getattr(self, name):
                raise ValueError(f"width {self.width} is no multiple of {name}, {getattr(self, name)}")
        return self


class DynamicConv(nn.Module):
    """Depthwise convolution whose kernels a small network makes for each pixel, from the same features."""

    def __init__(self, width: int, *, kernel_size: int, kernel_channels: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        narrow, kernels = width // 4, width // kernel_channels
        self.squeeze = nn.Conv2d(width, narrow, 1)
        self.spread = nn.Conv2d(narrow, narrow, kernel_size, padding=kernel_size // 2, groups=narrow)
        self.generate = nn.Conv2d(narrow, kernels * kernel_size**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        (height, width), side = x.shape[2:], self.kernel_size
        kernels = self.generate(self.spread(self.squeeze(x))).unflatten(1, (-1, 1, side**2))  # B G 1 k² H W
        padded = F.pad(x, (side // 2,) * 4).unflatten(1, (kernels.shape[1], -1))  # B G N/G H+k-1 W+k-1
        total = torch.zeros_like(x).unflatten(1, (kernels.shape[1], -1))
        for index in range(side**2):
            row, column = divmod(index, side)
            shifted = padded[..., row : row + height, column : column + width]
            total = torch.addcmul(total, shifted, kernels[:, :, :, index])
        return total.flatten(1, 2)


class DynamicLocalAttention(nn.Module):
    """Multi-head dynamic local self-attention (MHDLSA): a dynamic convolution between two of 1×1."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        width = config.width
        self.value = nn.Conv2d(width, width, 1, bias=False)
        self.dynamic = DynamicConv(
            width, kernel_size=config.kernel_size, kernel_channels=config.kernel_channels
        )
        self.project = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.project(self.dynamic(self.value(x)))
        return mixed


class GlobalAttention(Attention):
    """Attention between channels, over the whole patch in training and over windows in use (SparseGSA)."""

    def __init__(self, config: DLGSANetConfig) -> None:
        sparse = config.pattern == "sparseedge"
        super().__init__(
            config.width, heads=config.heads, similarity=config.activation if sparse else "softmax"
        )
        self.windowed, self.window = config.windowed, config.window if sparse else _EDGE_WINDOW

    def mixed(self, rows: Tensor) -> Tensor:
        """Return `B N H W` from queries, keys and values `B 3N H W`."""
        if self.training or not self.windowed:
            return super().mixed(rows)
        return over_windows(rows, super().mixed, window=self.window)


class PlainFeedForward(nn.Module):
    """Two 1×1 convolutions about a GELU."""

    def __init__(self, width: int, *, ratio: float) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, int(width * ratio), 1)
        self.project = nn.Conv2d(int(width * ratio), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.project(F.gelu(self.expand(x)))
        return mixed


class Layer(nn.Module):
    """Attention, then a feed-forward network, each behind a norm and with a skip."""

    def __init__(self, attention: nn.Module, feed_forward: nn.Module, *, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(width, eps=1e-5)
        self.attention = attention
        self.channel_norm = LayerNorm2d(width, eps=1e-5)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.feed_forward(self.channel_norm(x))


def _block(config: DLGSANetConfig) -> list[Layer]:
    """Return the layers of a hybrid block (HDTB)."""
    kinds = {"gated": FeedForward, "plain": PlainFeedForward}
    width, layers = config.width, []
    if config.pattern != "restormer":
        mixing = kinds[config.local_feed_forward](width, ratio=config.local_ratio)
        layers.append(Layer(DynamicLocalAttention(config), mixing, width=width))
    if config.pattern != "idynamic":
        mixing = kinds[config.global_feed_forward](width, ratio=config.global_ratio)
        layers.append(Layer(GlobalAttention(config), mixing, width=width))
    return layers


class ResidualGroup(nn.Module):
    """Hybrid blocks in a row, closed by a 3×3 convolution, with a skip (RHDTG)."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(layer for _ in range(config.blocks) for layer in _block(config)))
        self.close = nn.Conv2d(config.width, config.width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.close(self.layers(x)) + x


def _reconstruction(config: DLGSANetConfig) -> nn.Module:
    width, channels, scale = config.width, config.channels, config.scale
    if config.reconstruction == "shuffle":
        return SubPixels(width, features=config.features, channels=channels, scale=scale)
    return nn.Conv2d(width, channels * scale**2, 3, padding=1)


class DLGSANet(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: DLGSANetConfig) -> None:
        super().__init__()
        self.config: DLGSANetConfig = config
        width = config.width
        mean = RGB_MEAN if config.channels == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.mean: Tensor
        self.shallow = nn.Conv2d(config.channels, width, 3, padding=1, bias=False)
        self.first_norm = LayerNorm2d(width, eps=1e-5) if config.outer_norms else nn.Identity()
        self.groups = nn.Sequential(*(ResidualGroup(config) for _ in range(config.groups)))
        self.norm = LayerNorm2d(width, eps=1e-5) if config.outer_norms else nn.Identity()
        self.fuse = nn.Conv2d(width, width, 3, padding=1)
        self.reconstruct = _reconstruction(config)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; no halo, see the file's head."""
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.shallow((x - self.mean) * self.config.image_range)  # B N H W
        deep = self.fuse(self.norm(self.groups(self.first_norm(shallow)))) + shallow
        output = self.reconstruct(deep)
        if self.config.reconstruction == "direct":
            output = F.pixel_shuffle(output, self.config.scale)  # B C sH sW
        return output / self.config.image_range + self.mean

    def start_from(self, source: Network) -> list[str]:
        """Take over another DLGSANet's trunk and, where it enlarges directly, its nearest sub-pixels."""
        left = super().start_from(source)
        ends = [source.reconstruct, self.reconstruct] if isinstance(source, DLGSANet) else []
        if "reconstruct.weight" in left and all(isinstance(end, nn.Conv2d) for end in ends):
            assert isinstance(source, DLGSANet)
            scales = {"old": source.config.scale, "new": self.config.scale}
            if respread_subpixels(*ends, **scales):  # type: ignore[arg-type]
                left = [name for name in left if not name.startswith("reconstruct.")]
        return left


_WINDOWS = {2: 96, 3: 72, 4: 48}
"""The authors' windows for each scale."""

VARIANTS = {
    f"dlgsanet{size}-x{scale}": Variant(
        DLGSANetConfig(scale=scale, window=_WINDOWS[scale], width=width, groups=groups, blocks=blocks), count
    )
    for size, width, groups, blocks, counts in (
        ("", 90, 6, 4, (4_733_724, 4_745_889, 4_762_920)),
        ("-light", 48, 4, 3, (745_188, 751_683, 760_776)),
        ("-tiny", 48, 3, 3, (565_710, 572_205, 581_298)),
    )
    for scale, count in zip((2, 3, 4), counts, strict=True)
}

NETWORK = DLGSANet
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {
    "buildblock_type": "pattern",
    "tlc_flag": "windowed",
    "tlc_kernel": "window",
    "activation": "activation",
    "img_range": "image_range",
}
"""Authors' arguments that their checkpoints do not show."""


def tiny(config: DLGSANetConfig) -> DLGSANetConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    small = {"width": 4, "groups": 1, "blocks": 1, "kernel_channels": 2, "heads": 2, "kernel_size": 3}
    return config.model_copy(update={**small, "window": 10})


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES = (
    (r"^((?:first_)?norm)\.body\.", r"\1."),
    (r"^overlap_embed\.0\.proj\.", "shallow."),
    (r"\.body\.(\d+)\.(\w+)\.", r".layers.\1.\2."),
    (r"\.norm[13]\.body\.", ".norm."),
    (r"\.norm[24]\.body\.", ".channel_norm."),
    (r"\.IDynamicDWConv\.conv0\.", ".attention.value."),
    (r"\.IDynamicDWConv\.conv1\.", ".attention.project."),
    (r"\.IDynamicDWConv\.conv\.conv1\.0\.", ".attention.dynamic.squeeze."),
    (r"\.IDynamicDWConv\.conv\.conv1\.1\.", ".attention.dynamic.spread."),
    (r"\.IDynamicDWConv\.conv\.conv2\.0\.", ".attention.dynamic.generate."),
    (r"\.restormer_attn\.qkv\.", ".attention.expand."),
    (r"\.restormer_attn\.qkv_dwconv\.", ".attention.spread."),
    (r"\.restormer_attn\.project_out\.", ".attention.project."),
    (r"\.restormer_attn\.temperature$", ".attention.temperature"),
    (r"\.\w+_ffn\.(project_in|body\.0)\.", ".feed_forward.expand."),
    (r"\.\w+_ffn\.dwconv\.", ".feed_forward.spread."),
    (r"\.\w+_ffn\.(project_out|body\.2)\.", ".feed_forward.project."),
    (r"\.body\.\d+\.(weight|bias)$", r".close.\1"),
)
_PLACE = re.compile(r"^deep_feature_extraction\.(\d+)\.")


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint, of any pattern and with any reconstruction.

    Returns:
        Our config and state, or None where the keys are not DLGSANet's. `image_range` is taken to be 1,
        windows to be the authors' for the scale, and likeness between channels to pass a ReLU.
    """
    if "overlap_embed.0.proj.weight" not in state:
        return None
    known: dict[str, Any] = {"reconstruction": "direct"}
    if "conv_before_upsample.0.weight" in state:
        layers, enlarging = official_subpixels(state, "reconstruct")
        known = {"reconstruction": "shuffle", **enlarging}
    elif "upsample.0.weight" in state:
        layers = {"upsample.0": "reconstruct"}
    elif "conv_last.weight" in state:
        layers = {"conv_last": "reconstruct"}
    else:
        return None
    places = {int(match[1]) for match in map(_PLACE.match, state) if match}
    last, norms = max(places, default=0), "deep_feature_extraction.0.body.weight" in state
    ends = {last: "fuse", **({0: "first_norm", last - 1: "norm"} if norms else {})}

    def placed(match: re.Match[str]) -> str:
        place = int(match[1])
        return f"{ends[place]}." if place in ends else f"groups.{place - norms}."

    ours = renamed_state(state, ((_PLACE.pattern, placed), *_RENAMES), layers=layers)
    config = _config_of(ours, known, norms=norms)
    return None if config is None else Official(config, ours)


def _config_of(
    ours: Mapping[str, Tensor], enlarging: Mapping[str, Any], *, norms: bool
) -> DLGSANetConfig | None:
    """Read the settings off the state, beside those of the reconstruction; None where it has no layer."""
    width, channels = ours["shallow.weight"].shape[:2]
    groups = {key.split(".")[1] for key in ours if key.startswith("groups.")}
    layers = {key.split(".")[3] for key in ours if key.startswith("groups.0.layers.")}
    known: dict[str, object] = {}
    dynamic, channelwise = False, False
    for index in layers:
        layer = f"groups.0.layers.{index}."
        gated = f"{layer}feed_forward.spread.weight" in ours
        expand = ours.get(f"{layer}feed_forward.expand.weight")
        if expand is None:
            return None
        hidden = expand.shape[0] // 2 if gated else expand.shape[0]
        feed_forward, ratio = "gated" if gated else "plain", ratio_of([(width, hidden)])
        if f"{layer}attention.dynamic.generate.weight" in ours:
            dynamic = True
            side = ours[f"{layer}attention.dynamic.spread.weight"].shape[-1]
            kernels = ours[f"{layer}attention.dynamic.generate.weight"].shape[0] // side**2
            known |= {"kernel_size": side, "kernel_channels": width // kernels}
            known |= {"local_feed_forward": feed_forward, "local_ratio": ratio}
        elif f"{layer}attention.temperature" in ours:
            channelwise = True
            known |= {"heads": ours[f"{layer}attention.temperature"].shape[0]}
            known |= {"global_feed_forward": feed_forward, "global_ratio": ratio}
    if not dynamic and not channelwise:
        return None
    scale = enlarging.get("scale") or round((ours["reconstruct.weight"].shape[0] / channels) ** 0.5)
    values = {
        "scale": scale,
        "channels": channels,
        "width": width,
        "groups": len(groups),
        "blocks": len(layers) // (dynamic + channelwise),
        "pattern": "restormer" if not dynamic else "sparseedge" if channelwise else "idynamic",
        "window": _WINDOWS.get(scale, _EDGE_WINDOW),
        "outer_norms": norms,
    }
    return DLGSANetConfig.parse({**values, **enlarging, **known}, where="a DLGSANet of its authors")
