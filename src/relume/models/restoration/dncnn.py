"""DnCNN: convolutions in a row that estimate the noise, which is subtracted.

Zhang, Zuo, Chen, Meng, Zhang, IEEE TIP 2017, arXiv:1608.03981. `forward` follows figure 1 and equation 1: a
3×3 convolution, 3×3 convolutions with batch norm, a last one; ReLUs between; the result is what is
subtracted. IRCNN's denoiser (Zhang, Zuo, Gu, Zhang, CVPR 2017, arXiv:1704.03264, figure 2) is the same with
seven convolutions, dilated by 1, 2, 3, 4, 3, 2, 1, and is here as well.

Shapes: B batch, C picture channels, N width, H W size.

    x - W_d relu(… relu(norm(W₂ relu(W₁ x))))

Two forms: in training, each convolution but the first and the last has a batch norm; in use that is merged
into the convolution, as in the checkpoints that the authors publish. The parameter counts are of that form.

Departs from the authors' code (https://github.com/cszn/KAIR):
- Its batch norms take nine tenths of the newest batch into their running mean, ours the usual tenth.
- Dilation leaves no trace in a file: seven convolutions without norms are taken for IRCNN's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Claim, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.nn.network import Network
from relume.nn.normed import NormedConv

CARD = Card(
    name="dncnn",
    title="Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising",
    summary=(
        "The denoiser that others are measured against: seventeen plain convolutions that estimate the noise "
        "and subtract it, of one level or, with three more, of any. IRCNN's lighter one comes with it."
    ),
    when="For noise of a known level, or blind for any, quickly; and to compare others with.",
    venue="IEEE Transactions on Image Processing, 2017",
    task=Task.RESTORATION,
    arxiv="1608.03981",
    code="https://github.com/cszn/KAIR",
    claims=tuple(
        Claim(variant=variant, dataset=dataset, metric="psnr", value=value, protocol="sr-rgb")
        for variant, dataset, value in (
            ("dncnn-15", "Set12, noise 15", 32.86),
            ("dncnn-25", "Set12, noise 25", 30.44),
            ("dncnn-50", "Set12, noise 50", 27.18),
            ("dncnn-15", "BSD68, noise 15", 31.73),
            ("dncnn-25", "BSD68, noise 25", 29.23),
            ("dncnn-50", "BSD68, noise 50", 26.23),
        )
    ),
)

_EPS = 1e-4
_SLOPE = 0.2
_IRCNN = (1, 2, 3, 4, 3, 2, 1)


def _row(value: object) -> object:
    """Take the authors' number of convolutions, none of them dilated."""
    return (1,) * value if isinstance(value, int) else value


def _activation(value: object) -> object:
    """Take the authors' letters: "BR" is batch norm and ReLU, "L" a leaky ReLU."""
    return {"R": "relu", "BR": "relu", "L": "leaky", "BL": "leaky"}.get(str(value), value)


class DnCNNConfig(Config):
    """Settings of a DnCNN; the defaults are the paper's for one level of noise.

    Attributes:
        channels: C; 1 takes gray pictures, and of others each channel by itself.
        width: N.
        dilations: of the convolutions, one for each.
        activation: "relu", or "leaky" of slope 0.2.
    """

    channels: PositiveInt = 1
    width: PositiveInt = 64
    dilations: Annotated[
        tuple[PositiveInt, ...], BeforeValidator(_row), Field(min_length=2, max_length=64)
    ] = (1,) * 17
    activation: Annotated[Literal["relu", "leaky"], BeforeValidator(_activation)] = "relu"


class DnCNN(Network):
    """The whole network, in its training form until `nn.surgery` re-parameterises it.

    Takes `B C H W` with values 0..1 and gives `B C H W`, any H and W from 1 up.
    """

    def __init__(self, config: DnCNNConfig) -> None:
        super().__init__()
        self.config: DnCNNConfig = config
        width, (first, *middle, last) = config.width, config.dilations
        self.shallow = nn.Conv2d(config.channels, width, 3, padding=first, dilation=first)
        self.layers = nn.ModuleList(
            NormedConv(width, width, bias=True, dilation=dilation, eps=_EPS) for dilation in middle
        )
        self.last = nn.Conv2d(width, config.channels, 3, padding=last, dilation=last)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out of the same size."""
        return Contract(scale=1, channels=self.config.channels, halo=sum(self.config.dilations))

    def forward(self, x: Tensor) -> Tensor:
        noise = self._activate(self.shallow(x))  # B N H W
        for layer in self.layers:
            noise = self._activate(layer(noise))
        return x - self.last(noise)

    def _activate(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.config.activation == "relu" else F.leaky_relu(x, _SLOPE)


_BLIND: dict[str, object] = {"dilations": 20}

VARIANTS = {
    name: Variant(DnCNNConfig.parse(settings, where=name), parameters, steps=("reparameterise",))
    for name, settings, parameters in (
        # One network, for noise of one level each.
        ("dncnn-15", {}, 555_137),
        ("dncnn-25", {}, 555_137),
        ("dncnn-50", {}, 555_137),
        # For noise of any level; the network of DnCNN-3 is that of "dncnn-blind", too.
        ("dncnn-blind", _BLIND, 665_921),
        ("dncnn-color-blind", {"channels": 3, **_BLIND}, 668_227),
        ("ircnn-25", {"dilations": _IRCNN}, 185_857),
        ("ircnn-color-25", {"channels": 3, "dilations": _IRCNN}, 188_163),
    )
}

NETWORK = DnCNN
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {"nb": "dilations", "act_mode": "activation"}
"""Authors' constructor arguments that their checkpoints do not show, and our names for them."""


def tiny(config: DnCNNConfig) -> DnCNNConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    return config.model_copy(
        update={"width": 6, "dilations": tuple(sorted(set(config.dilations))) + (1,) * 2}
    )


_KEY = re.compile(r"(?:model\.)?(\d+)\.(weight|bias|running_mean|running_var|num_batches_tracked)")


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise a checkpoint of the authors' code, with batch norms or with them merged, of DnCNN or IRCNN.

    Layers count by their order, as the number of each depends on how the norms were merged. Whether a ReLU is
    leaky cannot be seen, and it is taken not to be.

    Returns:
        Our config, state and steps, or None where the keys and shapes are not DnCNN's.
    """
    parts: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        parts.setdefault(int(match[1]), {})[match[2]] = value
    layers = [parts[number] for number in sorted(parts)]
    if not all("weight" in layer for layer in layers):
        return None
    convolutions = [tuple(layer["weight"].shape) for layer in layers if "running_mean" not in layer]
    if not convolutions or len(convolutions[0]) != 4:
        return None
    width, channels = convolutions[0][:2]
    middle = len(convolutions) - 2
    if middle < 0 or convolutions != [
        (width, channels, 3, 3), *[(width, width, 3, 3)] * middle, (channels, width, 3, 3),
    ]:  # fmt: skip
        return None  # a relative, such as FFDNet, or another row of layers
    normed = len(layers) > len(convolutions)
    ours: dict[str, Tensor] = {}
    index = -1
    for layer in layers:
        if "running_mean" in layer:
            name = f"layers.{index - 1}.norm"
        else:
            index += 1
            inner = f"layers.{index - 1}{'.conv' if normed else ''}"
            name = "shallow" if index == 0 else "last" if index > middle else inner
        ours |= {f"{name}.{part}": value for part, value in layer.items()}
    dilations = _IRCNN if middle + 2 == len(_IRCNN) and not normed else (1,) * (middle + 2)
    config = DnCNNConfig(channels=channels, width=width, dilations=dilations)
    return Official(config, ours, steps=() if normed else ("reparameterise",))
