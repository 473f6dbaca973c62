"""Routed: a small network enlarges everything, a large one the regions that it finds hard.

The idea and the training are PCSR's (Jeong et al., ECCV 2024, arXiv:2407.21448,
equations 3 to 5): a classifier learns which pixels gain by the dear way, from a
mixture of both outputs by its probabilities and a balance between them. What is
routed is another thing. In PCSR the trunk runs everywhere and only its samplers
are chosen; CFSR and its like spend nearly all their time in the trunk and have
next to no sampler, so here the whole large network is what easy regions do
without, and what is chosen are blocks of the picture.

Shapes: B batch, C picture channels, N width of the small network, H W low
resolution, s scale.

    f        = the small network's features                      B N H W
    light    = sub-pixels of f + bilinear enlarging              B C sH sW
    p        = probability that a pixel is heavy, from f         B H W
    training: p · heavy + (1 - p) · light, heavy = large(x)
    in use:   a block is heavy where its mean p exceeds 1 - effort, effort = 1/2 unless it
              is set (k = 0 of `nn.routing`); the large network runs on windows that cover the
              heavy blocks (light ones between them are taken along), the rest is light.

A window sees a frame of pixels around it, at least `context` and an eighth of
its side, not all that the large network could look at. For CFSR, whose reach is
63 pixels, a frame of 4 around windows of 16 costs 0.003 dB on Set14 and one of 8
nothing that can be measured. At effort 1 the output of a picture of up to 512
pixels a side is the large network's own, at 0 the small one's.

What it saves depends on the picture (`benchmarks/effort_curve.py`, docs/images/
effort-curve.png; native engine, one thread, against cfsr-x4 alone). On large
smooth photos much: effort 0.6 took 30 % of the time for 0.45 dB less on four of
CelebA-HQ, where less of it hardly calls the large network. On Set14 and Urban100,
small and full of texture, a mixture in proportion would do nearly as well: 0.5
takes 80 % and 88 % of the time for 0.24 and 0.16 dB less. Above that such
pictures take up to 16 % longer than cfsr-x4 alone; effort 0, the small network,
takes 18 % of the time and loses 0.6 to 0.8 dB.

Blocks are counted from the picture's corner, so tiles of a picture would be cut
into other blocks than the whole: the reach is stated as unbounded, and the
network cuts large pictures itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Task
from relume.core.catalogue import systems
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.models import zoo
from relume.nn.network import Network, reach
from relume.nn.routing import Router, exceeds
from relume.nn.windows import Window, cover

CARD = Card(
    name="routed",
    title="Routed regions: PCSR's pixel classification over a whole network",
    summary=(
        "A small network enlarges the whole picture and says which regions it finds hard; only these are "
        "enlarged by a large network, here CFSR. How much is spent can be chosen when it is used. Made for "
        "this project after PCSR."
    ),
    when=(
        "For large pictures of which much is smooth, on a CPU: quicker than CFSR at almost its figures; "
        "`--effort` chooses between time and quality."
    ),
    venue="relume, after ECCV 2024",
    task=Task.SUPER_RESOLUTION,
    arxiv="2407.21448",
)

_LARGEST = 512
"""Longest side of a window in input pixels: bounds the memory."""

_WIDEST = 16
"""Widest frame, around large windows: with it CFSR's output is within 1e-4 of the whole picture's."""

_STRIP = 2**16
"""Input pixels that the small network takes at a time, about: bounds the memory."""


class RoutedConfig(Config):
    """Settings of a routed network.

    Attributes:
        system: which architecture the large network is.
        settings: its settings where they are not its defaults.
        width: N of the small network.
        depth: 3×3 convolutions between its first and its last.
        hidden: hidden width of the classifier.
        block: side of the blocks that are light or heavy, in input pixels.
        context: least width of the frame around a window that the large network is shown, in input pixels.
    """

    system: str = "cfsr"
    settings: dict[str, Any] = Field(default={"scale": 4})
    width: PositiveInt = 32
    depth: NonNegativeInt = 3
    hidden: PositiveInt = 16
    block: PositiveInt = 32
    context: NonNegativeInt = 4

    def large(self) -> Config:
        """Return the large network's settings.

        Raises:
            ConfigError: they are not settings of that system.
        """
        return zoo.config_class(self.system).parse(self.settings, where=f"settings of {self.system}")


class SmallNetwork(nn.Module):
    """Sub-pixel convolution over a few 3×3 convolutions, added to bilinear enlarging; and a classifier.

    Args:
        channels: C.
        scale: s.
        config: of the whole.
    """

    def __init__(self, channels: int, scale: int, config: RoutedConfig) -> None:
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 5, padding=2), nn.ReLU()]
        for _ in range(config.depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.extract = nn.Sequential(*layers)
        self.reconstruct = nn.Conv2d(width, channels * scale**2, 3, padding=1)
        self.classify = nn.Sequential(nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 2))
        self.router = Router()
        self.scale = scale
        self.reach = reach(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the light picture `B C sH sW` and the probability of heavy `B H W`."""
        features = self.extract((x - 0.5).contiguous(memory_format=torch.channels_last))  # B N H W
        enlarged = F.interpolate(x, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
        light = enlarged + F.pixel_shuffle(self.reconstruct(features), self.scale)
        return light, self.router(self.classify(features.permute(0, 2, 3, 1)))


class Routed(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: RoutedConfig) -> None:
        super().__init__()
        self.config: RoutedConfig = config
        heavy = zoo.build(config.large(), system=config.system)
        self._scale, self._channels = heavy.contract.scale, heavy.contract.channels
        self._luma = heavy.contract.luma
        # In use it may be another form of the same, see `with_heavy`.
        self.heavy: Callable[[Tensor], Tensor] = heavy
        self.light = SmallNetwork(self._channels, self._scale, config)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out; blocks make it depend on where the picture begins."""
        return Contract(scale=self._scale, channels=self._channels, halo=None, luma=self._luma, effort=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self._mixed(x)
        if self.effort == 1 and max(x.shape[2:]) <= _LARGEST:
            return self.heavy(x)
        output, chosen = self._decided(x)
        for index, blocks in enumerate(chosen):
            for window in self._windows(blocks, x):
                output[index, :, *window.enlarged(self._scale)] = self._heavy(x[index : index + 1], window)
        return output

    def routes(self, x: Tensor) -> Tensor:
        """Tell which output pixels the large network makes: `B C H W` to booleans `B 1 sH sW`."""
        output, chosen = self._decided(x)
        made = torch.zeros_like(output[:, :1], dtype=torch.bool)
        for index, blocks in enumerate(chosen):
            for window in self._windows(blocks, x):
                made[index, :, *window.enlarged(self._scale)] = True
        return made

    def folded(self) -> Routed:
        """Return the same network with its large part in the form that runs fastest."""
        assert isinstance(self.heavy, Network)
        return self.with_heavy(self.heavy.folded())

    def with_heavy(self, heavy: Callable[[Tensor], Tensor]) -> Routed:
        """Return this network for use only, its large part replaced by something that computes the same."""
        result = copy.copy(self)
        result._modules = {name: part for name, part in self._modules.items() if name != "heavy"}
        result.heavy = heavy
        return result

    def start_from(self, source: Network) -> list[str]:
        """Take over another routed network, or a trained large network as the heavy way."""
        if not isinstance(self.heavy, Network) or type(source) is not type(self.heavy):
            return super().start_from(source)
        left = {f"heavy.{name}" for name in self.heavy.start_from(source)}
        return [name for name, _ in self.named_parameters() if not name.startswith("heavy.") or name in left]

    def _mixed(self, x: Tensor) -> Tensor:
        """Return what is trained: both mixed by probability, or at effort 0 and 1 one of them."""
        if self.effort == 1:
            return self.heavy(x)
        light, probability = self.light(x)
        if self.effort == 0:
            return light
        weight = probability[:, None].repeat_interleave(self._scale, 2).repeat_interleave(self._scale, 3)
        return weight * self.heavy(x) + (1 - weight) * light

    def _decided(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the light picture and which blocks are to be heavy, `B rows columns`; by strips of rows."""
        height, width = x.shape[2:]
        block, reach = self.config.block, self.light.reach
        rows = max(1, _STRIP // width // block) * block
        pictures, blocks = [], []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            above, below = min(reach, top), min(reach, height - bottom)
            light, probability = self.light(x[:, :, top - above : bottom + below])
            pictures.append(light[:, :, above * self._scale : (above + bottom - top) * self._scale])
            inner = probability[:, None, above : above + bottom - top]
            blocks.append(F.avg_pool2d(inner, block, ceil_mode=True, count_include_pad=False)[:, 0])
        effort = 0.5 if self.effort is None else self.effort
        return torch.cat(pictures, 2), exceeds(torch.cat(blocks, 1), effort)

    def _windows(self, blocks: Tensor, x: Tensor) -> list[Window]:
        """Return windows in input pixels that hold the chosen blocks of one picture."""
        block = self.config.block
        found = cover(blocks.cpu(), context=self.config.context / block, largest=max(1, _LARGEST // block))
        height, width = x.shape[2:]
        return [
            Window(top * block, left * block, min(bottom * block, height), min(right * block, width))
            for top, left, bottom, right in found
        ]

    def _heavy(self, x: Tensor, window: Window) -> Tensor:
        """Run the large network on a window of one picture `1 C H W`; gives `C sh sw`."""
        top, left, bottom, right = window
        context = max(self.config.context, min(_WIDEST, min(bottom - top, right - left) // 8))
        above, before = min(context, top), min(context, left)
        seen = x[:, :, top - above : bottom + context, left - before : right + context]
        inner = Window(above, before, above + bottom - top, before + right - left)
        return self.heavy(seen)[0, :, *inner.enlarged(self._scale)]


VARIANTS = {"cfsr-routed-x4": Variant(RoutedConfig(), parameters=351_522, steps=("reparameterise",))}

NETWORK = Routed
"""What a variant's config builds."""

OFFICIAL_SETTINGS: dict[str, str] = {}
"""There are no authors' checkpoints."""

EXEMPTIONS = {
    "export": "which windows the large network runs on depends on the picture; a program has no such loop",
}


def tiny(config: RoutedConfig) -> RoutedConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    large = zoo.model_file(systems()[config.system]).tiny(config.large())
    settings = large.model_dump(mode="json")
    return config.model_copy(update={"settings": settings, "width": 8, "depth": 1, "hidden": 4, "block": 4})


def from_official(state: object) -> Official | None:  # noqa: ARG001
    """There are no authors' checkpoints."""
    return None
