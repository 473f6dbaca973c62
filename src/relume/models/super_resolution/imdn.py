"""IMDN: features are split again and again; what is kept of each step is weighed by contrast and fused.

Hui, Gao, Yang, Wang, ACM Multimedia 2019, arXiv:1909.11856. `forward` follows the paper's overview
figure: a convolution, information multi-distillation blocks (IMDB), all outputs of which are fused, a long
skip, a convolution and a pixel shuffle.

Shapes: B batch, C picture channels, N width, H W low resolution (before any halving), s scale.

Four forms, of the paper and of the challenges that the authors' code was entered in:

| form | halvings of the size first | blocks | trunk |
|---|---|---|---|
| "standard" | none | 4 steps, LeakyReLU, contrast attention | outputs collected |
| "same_size" ("AS") | two, each a convolution of stride 2 | as standard | as standard |
| "rtc" | none | 4 steps, LeakyReLU | in a row |
| "rte" | one | 6 steps, ReLU, no biases | in a row |

"same_size" takes a picture that is as large as the result, as the paper's network for any scale does.

Halo: only "rtc" has one. The means of "standard" and "same_size" go over the whole picture, and what "rte"
and "same_size" see depends on where their grid of 2 or 4 pixels begins, which is the picture's corner.

Departs from the paper and its code:
- Sides that 2 or 4 does not divide are continued mirrored and cut off again; the authors' code refuses them
  ("rte"), or cuts the picture in four overlapping parts ("same_size").
- "rte" works in 0..255 inside, which its code does not say and its weights need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from relume.core.card import Card, Task, claims_of
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Replacement, Variant, renamed_state
from relume.nn.distillation import CollectedBlocks
from relume.nn.feature_attention import OFFICIAL_NAMES, ContrastAttention
from relume.nn.network import Network, reach
from relume.nn.padding import cut, mirrored_to_multiple
from relume.nn.subpixels import SubpixelNetwork

_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
# The table of average PSNR and SSIM, trained on DIV2K; the one for x2 stands on the authors' page too.
_FIGURES = {
    "imdn-x2": ((38.00, 0.9605), (33.63, 0.9177), (32.19, 0.8996), (32.17, 0.9283), (38.88, 0.9774)),
    "imdn-x3": ((34.36, 0.9270), (30.32, 0.8417), (29.09, 0.8046), (28.17, 0.8519), (33.61, 0.9445)),
    "imdn-x4": ((32.21, 0.8948), (28.58, 0.7811), (27.56, 0.7353), (26.04, 0.7838), (30.45, 0.9075)),
}

CARD = Card(
    name="imdn",
    title="Lightweight Image Super-Resolution with Information Multi-distillation Network",
    summary=(
        "A light network that splits its features step by step: a quarter is kept, the rest is worked on. "
        "Channels are weighed by their contrast, and all blocks are heard at the end. A smaller form of it "
        "won a challenge for speed."
    ),
    when=(
        "For a light network of convolutions alone. RFDN, RLFN and BSRN, which follow from it, are lighter "
        "or quicker; its form rtc is tiny."
    ),
    venue="ACM Multimedia 2019",
    task=Task.SUPER_RESOLUTION,
    arxiv="1909.11856",
    code="https://github.com/Zheng222/IMDN",
    claims=claims_of(_FIGURES, _SETS),
)

Form = Literal["standard", "same_size", "rtc", "rte"]

_HALVINGS: dict[Form, int] = {"standard": 0, "same_size": 2, "rtc": 0, "rte": 1}
_SLOPE = 0.05


class IMDNConfig(Config):
    """Settings of an IMDN; the defaults are the paper's.

    Attributes:
        form: see the file's head.
        scale: s.
        channels: C of the pictures.
        width: N ("nf"), a multiple of 4, a quarter of which each step keeps.
        blocks: how many.
        narrow: channels in between of the attention by contrast (N over 16).
        image_range: factor on the input inside.
    """

    form: Form = "standard"
    scale: PositiveInt = 4
    channels: PositiveInt = 3
    width: Annotated[PositiveInt, Field(multiple_of=4)] = 64
    blocks: PositiveInt = 6
    narrow: PositiveInt = 4
    image_range: PositiveFloat = 1.0

    @property
    def attends(self) -> bool:
        """Whether blocks weigh channels by contrast, and all their outputs are collected."""
        return self.form in ("standard", "same_size")

    @property
    def halvings(self) -> int:
        """How often the size is halved before the blocks."""
        return _HALVINGS[self.form]


def _activation(config: IMDNConfig) -> nn.Module:
    return nn.ReLU() if config.form == "rte" else nn.LeakyReLU(_SLOPE)


class DistillationBlock(nn.Module):
    """Convolutions in a row; behind each a quarter of N is kept and the rest goes on (IMDB)."""

    def __init__(self, config: IMDNConfig) -> None:
        super().__init__()
        width, self.kept = config.width, config.width // 4
        long = config.form == "rte"
        # The short row keeps its last step whole; the long one goes on until nothing is left to split.
        ends = [(3, 3), (2, 2), (1, 1)] if long else [(3, 1)]
        sizes = [(4, 4), (3, 4), (3, 4), *ends]
        self.steps = nn.ModuleList(
            nn.Conv2d(self.kept * inputs, self.kept * outputs, 3, padding=1, bias=not long)
            for inputs, outputs in sizes
        )
        self.activation = _activation(config)
        self.finish = _activation(config) if long else nn.Identity()
        self.attend: nn.Module = nn.Identity()
        if config.attends:
            self.attend = ContrastAttention(width, config.narrow)
        self.fuse = nn.Conv2d(self.kept * len(sizes), width, 1, bias=not long)

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = [], x
        *steps, last = self.steps
        for step in steps:
            y = self.activation(step(rest))
            kept.append(y[:, : self.kept])
            rest = y[:, self.kept :]
        kept.append(self.finish(last(rest)))
        return self.fuse(self.attend(torch.cat(kept, 1))) + x  # B N H W


class Row(nn.Module):
    """Blocks in a row, closed by a 1×1 convolution, with a long skip."""

    def __init__(self, config: IMDNConfig) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DistillationBlock(config) for _ in range(config.blocks)))
        self.close = nn.Conv2d(config.width, config.width, 1, bias=config.form != "rte")

    def forward(self, x: Tensor) -> Tensor:
        return self.close(self.blocks(x)) + x


def _shallow(config: IMDNConfig) -> nn.Module:
    """Return the convolutions before the blocks, with the halvings."""
    channels, width = config.channels, config.width
    if not config.halvings:
        return nn.Conv2d(channels, width, 3, padding=1)
    first = 2 if config.halvings == 2 else 1
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=first, padding=1),
        _activation(config),
        nn.Conv2d(width, width, 3, stride=2, padding=1, bias=config.form != "rte"),
    )


def _trunk(config: IMDNConfig) -> nn.Module:
    if not config.attends:
        return Row(config)
    blocks = (DistillationBlock(config) for _ in range(config.blocks))
    close = nn.Conv2d(config.width, config.width, 3, padding=1)
    return CollectedBlocks(blocks, width=config.width, activation=_activation(config), close=close)


class IMDN(SubpixelNetwork):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: IMDNConfig) -> None:
        super().__init__()
        self.config: IMDNConfig = config
        self.multiple = 2**config.halvings
        self.shallow = _shallow(config)
        self.trunk = _trunk(config)
        subpixels = config.channels * (config.scale * self.multiple) ** 2
        self.reconstruct = nn.Conv2d(config.width, subpixels, 3, padding=1)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; whether it has a halo: the file's head."""
        halo = reach(self) if self.config.form == "rtc" else None
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=halo)

    def forward(self, x: Tensor) -> Tensor:
        low = x
        if self.multiple > 1:
            x = mirrored_to_multiple(x, self.multiple)
        features = self.shallow(x * self.config.image_range)  # B N H W, over the multiple
        output = self.enlarged(self.trunk(features)) / self.config.image_range
        return cut(output, low, scale=self.config.scale) if self.multiple > 1 else output  # B C sH sW


_RTC: dict[str, object] = {"form": "rtc", "scale": 2, "width": 12, "blocks": 5}
_RTE: dict[str, object] = {"form": "rte", "scale": 2, "width": 20, "image_range": 255.0}

VARIANTS = {
    "imdn-x2": Variant(IMDNConfig(scale=2), 694_404),
    "imdn-x3": Variant(IMDNConfig(scale=3), 703_059),
    "imdn-x4": Variant(IMDNConfig(scale=4), 715_176),
    "imdn-as": Variant(IMDNConfig(form="same_size", scale=1), 752_104),
    "imdn-rtc-x2": Variant(IMDNConfig.parse(_RTC, where="imdn-rtc-x2"), 20_190),
    "imdn-rte-x2": Variant(IMDNConfig.parse(_RTE, where="imdn-rte-x2"), 89_748),
}

NETWORK = IMDN
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"input_scale": "image_range"}
"""What the authors' scripts do around the network, which checkpoints do not show, and our name for it."""


def golden(network: Network, metadata: Mapping[str, str], x: Tensor) -> dict[str, Tensor]:
    """Compute a recorded case; one without a pipeline holds values in the network's own range."""
    assert isinstance(network, IMDN)
    own = 1.0 if metadata.get("pipeline") else network.config.image_range
    return {"output": network(x / own) * own}


def tiny(config: IMDNConfig) -> IMDNConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(update={"width": 8, "blocks": 2, "narrow": 8})


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES: tuple[tuple[str, Replacement], ...] = (
    (r"^(fea_conv|(model\.)?0)\.", "shallow."),
    (r"^(upsampler\.0|(model\.)?2)\.", "reconstruct."),
    (r"^c\.0\.", "trunk.fuse."),
    (r"^(LR_conv|(model\.)?1\.sub\.\d+)\.(?=weight|bias)", "trunk.close."),
    (r"^(?:model\.)?1\.sub\.(\d+)\.", r"trunk.blocks.\1."),
    (r"^(?:IMDB|block)(\d+)\.", lambda match: f"trunk.blocks.{int(match[1]) - 1}."),
    (r"\.c(\d)\.", lambda match: f".steps.{int(match[1]) - 1}."),
    *OFFICIAL_NAMES,
)
# "rtc" is all inside a module named model, which opening a checkpoint takes for a wrapper.
_MARKS: dict[str, Form] = {
    "IMDB1.cca.conv_du.0.weight": "standard",
    "model.1.sub.0.c5.weight": "rtc",
    "1.sub.0.c5.weight": "rtc",
    "block1.c7.weight": "rte",
}


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint of any form; "rte" is taken to work in 0..255, the others in 0..1.

    Returns:
        Our config, state and steps, or None where the keys are not IMDN's.
    """
    form = next((form for key, form in _MARKS.items() if key in state), None)
    if form is None:
        return None
    if "fea_conv.2.weight" in state and form == "standard":
        form = "same_size"
    # Theirs count steps from 1, and the fusion goes on counting.
    fusion = (rf"\.c{7 if form == 'rte' else 5}\.", ".fuse.")
    ours = renamed_state(state, (fusion, *_RENAMES))
    first = ours["shallow.weight" if "shallow.weight" in ours else "shallow.0.weight"]
    width, channels = first.shape[:2]
    factor = math.isqrt(ours["reconstruct.weight"].shape[0] // channels)
    values: dict[str, object] = {
        "form": form,
        "scale": factor // 2 ** _HALVINGS[form],
        "channels": channels,
        "width": width,
        "blocks": len({key.split(".")[2] for key in ours if key.startswith("trunk.blocks.")}),
        "image_range": 255.0 if form == "rte" else 1.0,
    }
    if (squeeze := "trunk.blocks.0.attend.squeeze.weight") in ours:
        values["narrow"] = ours[squeeze].shape[0]
    return Official(IMDNConfig.parse(values, where="an IMDN of its authors"), ours)
