"""RLFN: three convolutions and a local skip in each block, in place of everything that distils.

Kong et al., CVPR Workshops 2022, arXiv:2205.07514. `forward` follows the paper's overview figure: a
convolution, residual local feature blocks (RLFB) in a row, a convolution with a long skip, a convolution and
a pixel shuffle.

Shapes: B batch, C picture channels, N width, M hidden width, H W low resolution, s scale.

    y = W (x + act C₃ act C₂ act C₁ x),  attended by place, with one convolution at the small size

No halo: the attention by places enlarges by how large the picture is.

Departs from the paper and its code:
- Sides below 15 pixels, at which the authors' code fails, are continued mirrored and cut off again.
- The recipe has neither the paper's contrastive loss nor its warm starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from relume.core.card import Card, Task, claims_of
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Replacement, Variant, renamed_state
from relume.nn.feature_attention import OFFICIAL_NAMES, SpatialAttention, filled_for_places
from relume.nn.network import Network
from relume.nn.padding import cut
from relume.nn.subpixels import SubpixelNetwork

_SETS = ("Set5", "Set14", "B100", "Urban100")
# Table 1, trained on DIV2K.
_FIGURES = {
    "rlfn-x2": ((38.07, 0.9607), (33.72, 0.9187), (32.22, 0.9000), (32.33, 0.9299)),
    "rlfn-x4": ((32.24, 0.8952), (28.62, 0.7813), (27.60, 0.7364), (26.17, 0.7877)),
}

CARD = Card(
    name="rlfn",
    title="Residual Local Feature Network for Efficient Super-Resolution",
    summary=(
        "RFDN made fast: without the many branches that wait for each other, three convolutions and a skip "
        "in each block do as well. It won the track for speed of the NTIRE 2022 challenge."
    ),
    when="Where the time on a GPU counts more than parameters do: it claims RFDN's figures and more speed.",
    venue="CVPR Workshops 2022",
    task=Task.SUPER_RESOLUTION,
    arxiv="2205.07514",
    code="https://github.com/bytedance/RLFN",
    claims=claims_of(_FIGURES, _SETS),
)

_SLOPE = 0.05


class RLFNConfig(Config):
    """Settings of an RLFN; the defaults are the paper's.

    Attributes:
        scale: s.
        channels: C of the pictures.
        width: N ("feature_channels").
        hidden: M, between the convolutions of a block ("mid_channels"); N where it is None.
        blocks: how many.
        narrow: channels in between of the attention ("esa_channels").
        image_range: factor on the input inside.
    """

    scale: PositiveInt = 4
    channels: PositiveInt = 3
    width: PositiveInt = 52
    hidden: PositiveInt | None = None
    blocks: PositiveInt = 6
    narrow: PositiveInt = 16
    image_range: PositiveFloat = 255.0


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Block(nn.Module):
    """Three convolutions with a skip, mixed, then attended by place (RLFB)."""

    def __init__(self, config: RLFNConfig) -> None:
        super().__init__()
        width, hidden, narrow = config.width, config.hidden or config.width, config.narrow
        sizes = [(width, hidden), (hidden, hidden), (hidden, width)]
        self.local = nn.Sequential(
            *(layer for size in sizes for layer in (_conv(*size), nn.LeakyReLU(_SLOPE)))
        )
        self.mix = nn.Conv2d(width, width, 1)
        self.attend = SpatialAttention(
            width, narrow, shrink=nn.Conv2d(narrow, narrow, 3, stride=2), look=_conv(narrow, narrow)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(self.mix(self.local(x) + x))  # B N H W


class RLFN(SubpixelNetwork):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: RLFNConfig) -> None:
        super().__init__()
        self.config: RLFNConfig = config
        self.shallow = _conv(config.channels, config.width)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.blocks)))
        self.close = _conv(config.width, config.width)
        self.reconstruct = _conv(config.width, config.channels * config.scale**2)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; no halo, see the file's head."""
        return Contract(scale=self.config.scale, channels=self.config.channels, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        low, scale, image_range = x, self.config.scale, self.config.image_range
        shallow = self.shallow(filled_for_places(low) * image_range)  # B N H W
        deep = self.close(self.blocks(shallow)) + shallow
        return cut(self.enlarged(deep) / image_range, low, scale=scale)  # B C sH sW


_NTIRE: dict[str, object] = {"scale": 4, "width": 46, "hidden": 48, "blocks": 4}

VARIANTS = {
    **{
        f"rlfn-x{scale}": Variant(RLFNConfig(scale=scale), parameters)
        for scale, parameters in {2: 526_856, 3: 533_891, 4: 543_740}.items()
    },
    **{
        f"rlfn-s-x{scale}": Variant(RLFNConfig(scale=scale, width=48), parameters)
        for scale, parameters in {2: 454_620, 3: 461_115, 4: 470_208}.items()
    },
    "rlfn-ntire-x4": Variant(RLFNConfig.parse(_NTIRE, where="rlfn-ntire-x4"), 317_218),
}

NETWORK = RLFN
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"input_scale": "image_range"}
"""What the authors' scripts do around the network, which checkpoints do not show, and our name for it."""


def golden(network: Network, metadata: Mapping[str, str], x: Tensor) -> dict[str, Tensor]:
    """Compute a recorded case; one without a pipeline holds values in the network's own range."""
    assert isinstance(network, RLFN)
    own = 1.0 if metadata.get("pipeline") else network.config.image_range
    return {"output": network(x / own) * own}


def tiny(config: RLFNConfig) -> RLFNConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    hidden = config.hidden and 10
    # In the authors' range, attention whose weights are noise is all or nothing.
    return config.model_copy(
        update={"width": 8, "hidden": hidden, "blocks": 2, "narrow": 4, "image_range": 1.0}
    )


# Authors' names, in the order in which they are replaced, and ours.
_RENAMES: tuple[tuple[str, Replacement], ...] = (
    (r"^conv_1\.", "shallow."),
    (r"^conv_2\.", "close."),
    (r"^upsampler\.0\.", "reconstruct."),
    (r"\.c5\.", ".mix."),
    (r"\.esa\.conv3\.", ".attend.look."),
    *OFFICIAL_NAMES,
    # Theirs count from 1, ours with the activations.
    (r"^block_(\d+)\.", lambda match: f"blocks.{int(match[1]) - 1}."),
    (r"\.c(\d)_r\.", lambda match: f".local.{2 * int(match[1]) - 2}."),
)


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint, of the paper's networks or the challenge's.

    Checkpoints do not show their range of values; it is taken to be 0..255, as in the authors' scripts.

    Returns:
        Our config, state and steps, or None where the keys are not RLFN's.
    """
    if not {"block_1.c1_r.weight", "block_1.esa.conv1.weight", "conv_1.weight"} <= state.keys():
        return None
    ours = renamed_state(state, _RENAMES)
    width, channels = ours["shallow.weight"].shape[:2]
    hidden = ours["blocks.0.local.0.weight"].shape[0]
    config = RLFNConfig(
        scale=math.isqrt(ours["reconstruct.weight"].shape[0] // channels),
        channels=channels,
        width=width,
        hidden=None if hidden == width else hidden,
        blocks=len({key.split(".")[1] for key in ours if key.startswith("blocks.")}),
        narrow=ours["blocks.0.attend.reduce.weight"].shape[0],
    )
    return Official(config, ours)
