"""CARN: cascades within cascades, each output kept and fused again.

Ahn, Kang, Sohn, ECCV 2018, arXiv:1803.08664. `forward` follows figure 2(b): the
trunk (`nn.bodies.carn`), an upsampler of convolutions and pixel shuffles, a 3×3
convolution. CARN-M is the light one: grouped convolutions, one residual unit
used three times in each block. Shapes: B batch, C picture channels, N width,
H W low resolution, s scale.

Departs from the paper:
- The authors train one network for x2, x3 and x4 with an upsampler for each;
  ours holds the upsamplers that `scales` names and uses the one of `scale`.
- The mean colour that is subtracted and added again is a 1×1 convolution in the
  authors' checkpoints (`mean_shift` "convolution") and a constant in those of
  later comparisons, PCSR among them ("constant"), which also put batch norms
  into the fusions (the variant "carn-m-bn-x4").
- The authors' code groups the upsampler's convolutions alone where CARN itself is given groups
  (`upsampler_groups`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from relume.core.card import Card, Task, claims_of
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.nn.bodies import carn
from relume.nn.bodies.carn import CARNBodyConfig
from relume.nn.colour import RGB_MEAN
from relume.nn.network import Network

_SETS = ("Set5", "Set14", "B100", "Urban100")
# The table of PSNR and SSIM, as the papers of SAFMN and SeemoRe quote it; of networks for three scales each.
_FIGURES = {
    "carn-x2": ((37.76, 0.9590), (33.52, 0.9166), (32.09, 0.8978), (31.92, 0.9256)),
    "carn-x3": ((34.29, 0.9255), (30.29, 0.8407), (29.06, 0.8034), (28.06, 0.8493)),
    "carn-x4": ((32.13, 0.8937), (28.60, 0.7806), (27.58, 0.7349), (26.07, 0.7837)),
    "carn-m-x2": ((37.53, 0.9583), (33.26, 0.9141), (31.92, 0.8960), (31.23, 0.9193)),
    "carn-m-x3": ((33.99, 0.9236), (30.08, 0.8367), (28.91, 0.8000), (27.55, 0.8385)),
    "carn-m-x4": ((31.92, 0.8903), (28.42, 0.7762), (27.44, 0.7304), (25.62, 0.7694)),
}

CARD = Card(
    name="carn",
    title="Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual Network",
    summary=(
        "A residual network whose blocks hand all their earlier outputs on, so that little depth goes far. "
        "CARN-M, its mobile form, shares and groups its convolutions."
    ),
    when=(
        "As a trunk for others (PCSR has it), and to compare with. IMDN and later light networks claim more "
        "with less than half of its parameters."
    ),
    venue="ECCV 2018",
    task=Task.SUPER_RESOLUTION,
    arxiv="1803.08664",
    code="https://github.com/nmhkahn/CARN-pytorch",
    claims=claims_of(_FIGURES, _SETS),
)

Scale = Literal[2, 3, 4]


class CARNConfig(Config):
    """Settings of a CARN; the defaults are the paper's CARN-M.

    Attributes:
        scale: s.
        scales: which scales there are upsamplers for.
        body: the trunk.
        upsampler_groups: of the upsamplers' convolutions ("group"); None: as many as the trunk has.
        mean_shift: how the mean colour is subtracted and added, see the file's head.
        mean: mean colour where it is constant.
    """

    scale: Scale = 4
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = (2, 3, 4)
    body: CARNBodyConfig = CARNBodyConfig()
    upsampler_groups: PositiveInt | None = None
    mean_shift: Literal["convolution", "constant"] = "convolution"
    mean: tuple[float, float, float] = RGB_MEAN

    @model_validator(mode="after")
    def _fits(self) -> CARNConfig:
        if self.scale not in self.scales:
            raise ValueError(f"there is no upsampler for scale {self.scale}, only for {self.scales}")
        if self.body.channels != len(self.mean):
            raise ValueError(f"pictures must have {len(self.mean)} channels, got {self.body.channels}")
        if self.upsampler_groups and self.body.width % self.upsampler_groups:
            raise ValueError(
                f"width {self.body.width} must be a multiple of upsampler_groups {self.upsampler_groups}"
            )
        return self


class Upsampler(nn.Sequential):
    """A grouped 3×3 convolution, a ReLU and a pixel shuffle; for x4 twice, by 2 each time."""

    def __init__(self, scale: int, config: CARNConfig) -> None:
        layers: list[nn.Module] = []
        width, groups = config.body.width, config.upsampler_groups or config.body.groups
        for factor in (2, 2) if scale == 4 else (scale,):
            layers += [
                nn.Conv2d(width, width * factor**2, 3, padding=1, groups=groups),
                nn.ReLU(),
                nn.PixelShuffle(factor),
            ]
        super().__init__(*layers)


class MeanShift(nn.Conv2d):
    """Adds `sign` times a colour, by a 1×1 convolution that a training may change."""

    def __init__(self, mean: tuple[float, ...], *, sign: int) -> None:
        super().__init__(len(mean), len(mean), 1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(len(mean))[..., None, None])
            assert self.bias is not None
            self.bias.copy_(sign * torch.tensor(mean))


class Constant(nn.Module):
    """Adds `sign` times a colour that no checkpoint holds."""

    def __init__(self, mean: tuple[float, ...], *, sign: int) -> None:
        super().__init__()
        self.register_buffer("shift", sign * torch.tensor(mean)[:, None, None], persistent=False)
        self.shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class CARN(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: CARNConfig) -> None:
        super().__init__()
        self.config: CARNConfig = config
        shift = MeanShift if config.mean_shift == "convolution" else Constant
        self.centre = shift(config.mean, sign=-1)
        self.body = config.body.build()
        self.upsamplers = nn.ModuleDict({f"x{scale}": Upsampler(scale, config) for scale in config.scales})
        self.exit = nn.Conv2d(config.body.width, config.body.channels, 3, padding=1)
        self.restore = shift(config.mean, sign=1)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large."""
        # After the trunk the look around widens by one pixel at low and one at high resolution.
        return Contract(
            scale=self.config.scale,
            channels=self.config.body.channels,
            halo=self.body.reach + 2,
            scales=self.config.scales,
        )

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(self.centre(x))  # B N H W
        enlarged = self.upsamplers[f"x{self.config.scale}"](features)  # B N sH sW
        return self.restore(self.exit(enlarged))


_CARN = CARNBodyConfig(groups=1, residual="plain", shared=False)
_BN = CARNBodyConfig(batch_norm=True)

VARIANTS = {
    **{f"carn-x{scale}": Variant(CARNConfig(scale=scale, body=_CARN), 1_591_963) for scale in (2, 3, 4)},
    **{f"carn-m-x{scale}": Variant(CARNConfig(scale=scale), 414_811) for scale in (2, 3, 4)},
    "carn-m-bn-x4": Variant(CARNConfig(scales=(4,), body=_BN, mean_shift="constant"), 294_915),
}

NETWORK = CARN
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"scale": "scale", "mean": "mean"}
"""Authors' arguments that their checkpoints do not show, and our names for them."""


def tiny(config: CARNConfig) -> CARNConfig:
    """Return a small relative of a variant, quick enough to test everything on, for its one scale."""
    body = config.body.model_copy(update={"width": 8})
    return config.model_copy(update={"body": body, "scales": (config.scale,)})


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint, of the paper's code or of the form with batch norms.

    A checkpoint for several scales is loaded for the largest; `scale` chooses another.

    Returns:
        Our config, state and steps, or None where the keys are not CARN's.
    """
    found = carn.from_official(state)
    if found is None or "exit.weight" not in state:
        return None
    body, ours = found
    ours = {f"body.{name}": value for name, value in ours.items()}
    branches: dict[str, Scale] = {"up2": 2, "up3": 3, "up4": 4}
    scales = {name: scale for name, scale in branches.items() if f"upsample.{name}.body.0.weight" in state}
    if not scales:
        by_three = state["upsample.up.body.0.weight"].shape[0] == body.width * 9
        scales["up"] = 3 if by_three else 4 if "upsample.up.body.3.weight" in state else 2
    for key, value in state.items():
        name = re.sub(r"^sub_mean\.shifter\.", "centre.", re.sub(r"^add_mean\.shifter\.", "restore.", key))
        for theirs, scale in scales.items():
            name = re.sub(rf"^upsample\.{theirs}\.body\.", f"upsamplers.x{scale}.", name)
        if name != key or name.startswith("exit."):
            ours[name] = value
    groups = body.width // state[f"upsample.{next(iter(scales))}.body.0.weight"].shape[1]
    config = CARNConfig(
        scale=max(scales.values()),
        scales=tuple(scales.values()),
        body=body,
        upsampler_groups=None if groups == body.groups else groups,
        mean_shift="convolution" if "sub_mean.shifter.weight" in state else "constant",
    )
    # Whichever scale is the config's, the others' upsamplers are there for who asks for those.
    shown = ("scale", "mean") if config.mean_shift == "convolution" else ("scale",)
    return Official(config, ours, shown=shown)
