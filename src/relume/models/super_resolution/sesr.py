"""SESR: linear blocks of two convolutions, wide in training, that collapse to one narrow convolution each.

Bhardwaj, Milosavljevic, O'Neil, Gope, Matas, Chalfin, Suda, Meng, Loh, MLSys 2022, arXiv:2103.09404.
`forward` follows figure 2: a 5×5 linear block, m of 3×3 with PReLUs and a long skip, a 5×5 one to s²
channels, the input added to each of them, a pixel shuffle.

Shapes: B batch, f width, p wide channels within a block, H W low resolution, s scale.

    block(x) = W₂ W₁ x (+ x, which joins the kernel)          W₁ k×k to p channels, W₂ 1×1

Takes luma: of colour pictures it enlarges Y, and bicubic the rest (`nn.channels`).

Two forms. The training form holds W₁ and W₂ of each block. It multiplies them first and convolves by the
narrow product, so that a training step convolves what the collapsed form convolves, and still changes the
wide ones; `benchmarks/collapsing.py` measures what that saves. The collapsed form holds the product; the
paper's parameter counts mean it, and leave out the f slopes of each PReLU, which are counted here.

The authors' code knows two kinds of training (`biases`):
- "kernel", their default, which collapses in each step: there the biases b₁ and b₂ of the two convolutions
  are added to every entry of the kernel, as W₂ b₁ + b₂, and none is left of the output; and each block of as
  many channels in as out has the skip, the last one of x4 with f = 16 too;
- "output", which convolves twice: there the biases are the output's, and only the m blocks have the skip.

Departs from them:
- "output" collapses in each step too, which is exact: the second convolution does not look around.
- For x4 they shuffle by 2 twice. Here the channels of the last block lie as one shuffle by 4 takes them.
- Values are clamped to 0..1 in use only; in training that would give no gradient beyond the range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.nn.network import Network, Reparameterisable
from relume.nn.upsample import respread_subpixels

CARD = Card(
    name="sesr",
    title="Collapsible Linear Blocks for Super-Efficient Super Resolution",
    summary=(
        "Very small networks for luma, made for video on phones. In training each convolution is two wide "
        "ones with nothing between, which is easier to learn and collapses to the small one exactly."
    ),
    when=(
        "When every multiplication counts, as in video on phones, and enlarging the brightness alone will do."
    ),
    venue="MLSys 2022",
    task=Task.SUPER_RESOLUTION,
    arxiv="2103.09404",
    code="https://github.com/ARM-software/sesr",
    claims=tuple(
        Claim(variant=variant, dataset="Set14", metric="psnr", value=value)
        # Read off the figure of PSNR and multiplications, which the authors' page shows as well.
        for variant, value in (
            ("sesr-m3-x2", 32.70),
            ("sesr-m5-x2", 32.84),
            ("sesr-m7-x2", 32.91),
            ("sesr-m11-x2", 33.03),
            ("sesr-xl-x2", 33.24),
        )
    ),
)

_OUTER = 5
_INNER = 3
_MIDDLE = 0.5
"""What is subtracted from the input before the first block."""

Biases = Literal["kernel", "output"]


class SESRConfig(Config):
    """Settings of a SESR; the defaults are the paper's SESR-M5.

    Attributes:
        scale: s.
        width: f.
        depth: m, 3×3 blocks.
        expansion: p; shapes the training form only.
        biases: where the blocks' biases go, see the file's head.
    """

    scale: Literal[2, 4] = 2
    width: PositiveInt = 16
    depth: PositiveInt = 5
    expansion: PositiveInt = 256
    biases: Biases = "kernel"


class LinearBlock(Reparameterisable):
    """A k×k convolution to p channels and a 1×1 one, as one convolution: `B C H W` to `B C' H W`.

    Args:
        inputs: C.
        outputs: C'.
        size: k, odd.
        expansion: p.
        biases: where biases go.
        skip: for each output the input that is added to it; None for none.
    """

    def __init__(
        self, inputs: int, outputs: int, *, size: int, expansion: int, biases: Biases, skip: Tensor | None
    ) -> None:
        super().__init__()
        self.biases = biases
        self.expand = nn.Conv2d(inputs, expansion, size)
        self.project = nn.Conv2d(expansion, outputs, 1)
        for layer in (self.expand, self.project):
            assert layer.bias is not None
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        added = torch.zeros(outputs, inputs, size, size)
        if skip is not None:
            added[torch.arange(outputs), skip, size // 2, size // 2] = 1
        self.register_buffer("added", added, persistent=False)
        self.added: Tensor

    def kernel(self) -> tuple[Tensor, Tensor | None]:
        """Return the collapsed kernel `C' C k k`, and the bias `C'` where there is one."""
        expand, project = self.expand.bias, self.project.bias
        assert expand is not None
        assert project is not None
        mixing = self.project.weight.flatten(1)  # C' p
        weight = (mixing @ self.expand.weight.flatten(1)).view_as(self.added) + self.added
        bias = mixing @ expand + project  # C'
        if self.biases == "output":
            return weight, bias
        return weight + bias[:, None, None, None], None

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.kernel()
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    def merged(self) -> nn.Conv2d:
        """Return the plain convolution with the collapsed kernel."""
        weight, bias = self.kernel()
        outputs, inputs, size, _ = weight.shape
        conv = nn.Conv2d(
            inputs, outputs, size, padding=size // 2, bias=bias is not None, device=weight.device,
            dtype=weight.dtype,
        )  # fmt: skip
        conv.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            conv.bias = nn.Parameter(bias.detach().clone())
        return conv

    @torch.no_grad()
    def absorb(self, layer: nn.Module) -> bool:
        """Keep the 1×1 convolution, and let the wide one before it make a collapsed kernel."""
        if not isinstance(layer, nn.Conv2d) or layer.weight.shape != self.added.shape:
            return False
        bias = self.project.bias
        assert bias is not None
        mixing = self.project.weight.flatten(1).double()  # C' p
        has_bias = layer.bias is not None
        if torch.linalg.matrix_rank(mixing) < len(mixing) or has_bias != (self.biases == "output"):
            return False
        wanted = torch.linalg.pinv(mixing) @ (layer.weight - self.added).flatten(1).double()
        self.expand.weight.copy_(wanted.view_as(self.expand.weight))
        assert self.expand.bias is not None
        self.expand.bias.zero_()
        bias.zero_()
        if layer.bias is not None:
            bias.copy_(layer.bias)
        return True


class SESR(Network):
    """The whole network, in its training form until `nn.surgery` re-parameterises it.

    Takes luma `B 1 H W` with values 0..1 and gives `B 1 sH sW`, any H and W from 1 up.
    """

    def __init__(self, config: SESRConfig) -> None:
        super().__init__()
        self.config: SESRConfig = config
        width, subpixels = config.width, config.scale**2

        def block(inputs: int, outputs: int, size: int, skip: Tensor | None) -> LinearBlock:
            settings = {"size": size, "expansion": config.expansion}
            return LinearBlock(inputs, outputs, **settings, biases=config.biases, skip=skip)

        straight = torch.arange(width)
        ends = config.biases == "kernel"
        self.shallow: nn.Module = block(1, width, _OUTER, straight if ends and width == 1 else None)
        self.blocks = nn.ModuleList(block(width, width, _INNER, straight) for _ in range(config.depth))
        # Slopes start at zero, as the authors'.
        self.activations = nn.ModuleList(nn.PReLU(width, init=0.0) for _ in range(config.depth))
        crossed = _authors_channels(config.scale) if ends and width == subpixels else None
        self.expand: nn.Module = block(width, subpixels, _OUTER, crossed)

    @property
    def contract(self) -> Contract:
        """Luma in, luma out, `scale` times as large."""
        halo = 2 * (_OUTER // 2) + self.config.depth * (_INNER // 2)
        return Contract(scale=self.config.scale, channels=1, halo=halo, luma=True)

    def forward(self, x: Tensor) -> Tensor:
        shallow = deep = self.shallow(x - _MIDDLE)  # B f H W
        for block, activate in zip(self.blocks, self.activations, strict=True):
            deep = activate(block(deep))
        output = F.pixel_shuffle(self.expand(deep + shallow) + x, self.config.scale)  # B 1 sH sW
        return output if self.training else output.clamp(0, 1)

    def start_from(self, source: Network) -> list[str]:
        """Take over another SESR's layers and, where the scale differs, its nearest sub-pixels."""
        left = super().start_from(source)
        if isinstance(source, SESR) and any(name.startswith("expand.") for name in left):
            old, new = _collapsed(source.expand), _collapsed(self.expand)
            taken = respread_subpixels(old, new, old=source.config.scale, new=self.config.scale)
            if taken and isinstance(self.expand, LinearBlock):
                taken = self.expand.absorb(new)
            if taken:
                left = [name for name in left if not name.startswith("expand.")]
        return left


def _collapsed(block: nn.Module) -> nn.Conv2d:
    collapsed = block.merged() if isinstance(block, LinearBlock) else block
    assert isinstance(collapsed, nn.Conv2d)
    return collapsed


def _authors_channels(scale: int) -> Tensor:
    """Return which channel of the authors', who shuffle by 2 repeatedly, each is of one pixel shuffle."""
    if scale == 2:
        return torch.arange(4)
    # Row and column of the first shuffle, then of the second; one shuffle has both rows first.
    return torch.arange(16).view(2, 2, 2, 2).transpose(1, 2).flatten()


VARIANTS = {
    f"sesr-{size}-x{scale}": Variant(
        SESRConfig.parse({"scale": scale, **settings}, where="sesr"),
        parameters=parameters,
        steps=("reparameterise",),
    )
    for size, settings, counts in (
        ("m3", {"depth": 3}, {2: 8_960, 4: 13_760}),
        ("m5", {"depth": 5}, {2: 13_600, 4: 18_400}),
        ("m7", {"depth": 7}, {2: 18_240, 4: 23_040}),
        ("m11", {"depth": 11, "expansion": 64}, {2: 27_520, 4: 32_320}),
        ("xl", {"depth": 11, "expansion": 64, "width": 32}, {2: 105_728, 4: 115_328}),
    )
    for scale, parameters in counts.items()
}

NETWORK = SESR
"""What a variant's config builds."""

OFFICIAL_SETTINGS: dict[str, str] = {}
"""Authors' constructor arguments that their checkpoints do not show: none."""

EXEMPTIONS = {
    "halo": "clamping hides what random weights do beyond 0..1; tests/models/test_sesr.py tries it within"
}


def tiny(config: SESRConfig) -> SESRConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"width": 3, "depth": 1, "expansion": 4})


_KEY = re.compile(
    r"(?:(input_block|output_block|linear_blocks\.\d+)\.(collapse|block)\.([01])\.(kernel|bias))"
    r"|activations\.(\d+)\.alpha"
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise the authors' training form by the attributes of their Keras model, kernels as `k k C C'`.

    Returns:
        Our config, state and steps, or None where the keys are not SESR's.
    """
    kinds = {kind for kind in ("collapse", "block") if f"input_block.{kind}.0.kernel" in state}
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        block, _, layer, part, activation = match.groups()
        if activation is not None:
            ours[f"activations.{activation}.weight"] = value.flatten()
            continue
        name = {"input_block": "shallow", "output_block": "expand"}.get(block)
        name = name or block.replace("linear_blocks", "blocks")
        value = value.permute(3, 2, 0, 1).contiguous() if part == "kernel" else value
        ours[f"{name}.{('expand', 'project')[int(layer)]}.{'weight' if part == 'kernel' else part}"] = value
    subpixels = ours["expand.project.weight"].shape[0]
    scale = math.isqrt(subpixels)
    expansion = ours["shallow.expand.weight"].shape[0]
    settings = {
        "scale": scale,
        "width": ours["shallow.project.weight"].shape[0],
        "depth": sum(key.startswith("activations.") for key in ours),
        "expansion": expansion,
        "biases": "kernel" if kind == "collapse" else "output",
    }
    config = SESRConfig.parse(settings, where="a SESR of its authors")
    order = _authors_channels(scale)
    for part in ("weight", "bias"):
        ours[f"expand.project.{part}"] = ours[f"expand.project.{part}"][order]
    return Official(config, ours)


def golden(network: SESR, metadata: Mapping[str, str], x: Tensor) -> dict[str, Tensor]:
    """Compute what a recorded case of the authors' code holds, whose channels come last."""
    outputs = {"output": network}
    if "output_expanded" in metadata["note"]:
        expanded = SESR(network.config.model_copy(update={"biases": "output"})).eval()
        expanded.load_state_dict(network.state_dict())
        outputs["output_expanded"] = expanded
    low = x.permute(0, 3, 1, 2)
    return {name: each(low).permute(0, 2, 3, 1) for name, each in outputs.items()}
