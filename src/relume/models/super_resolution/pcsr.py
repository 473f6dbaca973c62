"""PCSR: a classifier sends each output pixel to a light or a heavy sampler, by how hard it is.

Jeong, Kim, Jo, Kim, ECCV 2024, arXiv:2407.21448. `forward` follows figure 2:
a trunk extracts features; for each output pixel, a sampler maps the nearest
feature and the pixel's place in it to a colour that is added to bilinear
enlarging; which sampler, the classifier says. Then light pixels beside heavy
ones are replaced by the mean of their 3×3 neighbours ("refinement").

Shapes: B batch, C picture channels, N width, H W low resolution, s scale,
R = B·H·W features, S = s² output pixels in each, K hidden width.

Training follows equations 3 to 5: both samplers run everywhere and their
outputs are mixed by the classifier's probabilities. In use only the chosen
sampler runs, on the gathered pixels. `Network.effort` moves the threshold, see
`nn.routing`; the published knobs are `k` and `adaptive`.

Departs from the paper and its code:
- For a whole scale, a pixel's place takes only S values, so the first layer of a
  sampler is split: its part for the feature is computed once for each feature
  instead of S times, its part for the place once for all. The sum is the same
  but for rounding.
- `adaptive` clusters each picture by itself, not a batch together.
- The mean colour is subtracted and added here instead of by the caller.
- Exported programs run both samplers everywhere and choose afterwards, as a
  graph cannot depend on values; the output is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant
from relume.nn.bodies import carn, fsrcnn
from relume.nn.bodies.carn import CARNBodyConfig
from relume.nn.bodies.fsrcnn import FSRCNNBodyConfig
from relume.nn.colour import RGB_MEAN
from relume.nn.network import Network
from relume.nn.routing import Router, cluster, exceeds, threshold_of_costs

CARD = Card(
    name="pcsr",
    title="Accelerating Image Super-Resolution Networks with Pixel-Level Classification",
    summary=(
        "A way to make an enlarging network quicker: a small classifier finds the pixels that are easy, and "
        "these are made by a light sampler while only the hard ones get the heavy one. How much is spent can "
        "be chosen when the network is used."
    ),
    when=(
        "For large pictures of which much is smooth, when time is short; `--effort` chooses between time "
        "and quality."
    ),
    venue="ECCV 2024",
    task=Task.SUPER_RESOLUTION,
    arxiv="2407.21448",
    code="https://github.com/3587jjh/PCSR",
)

_CHUNK = 2**17
"""Output pixels that a sampler takes at a time in use: bounds the memory, and stays in a CPU's caches."""

Hidden = tuple[PositiveInt, ...]


class PCSRConfig(Config):
    """Settings of a PCSR; the defaults are the paper's on CARN.

    Attributes:
        scale: s.
        encoder: the trunk.
        heavy: hidden widths of the heavy sampler.
        light: hidden widths of the light sampler.
        classifier: hidden widths of the classifier.
        mean: colour that is subtracted from the input and added to the output.
        k: favours the light sampler where positive, the heavy one where negative.
        adaptive: decide by clustering each picture's probabilities; `k` is not used then.
        refinement: smooth light pixels beside heavy ones.
    """

    scale: PositiveInt = 4
    encoder: Annotated[CARNBodyConfig | FSRCNNBodyConfig, Field(discriminator="name")] = CARNBodyConfig(
        width=52, batch_norm=True
    )
    heavy: Hidden = (74, 74, 74, 74)
    light: Hidden = (20, 20, 20)
    classifier: Hidden = (10, 10)
    mean: tuple[float, float, float] = RGB_MEAN
    k: float = 0.0
    adaptive: bool = False
    refinement: bool = True

    @model_validator(mode="after")
    def _fits(self) -> PCSRConfig:
        if self.encoder.channels != len(self.mean):
            raise ValueError(f"pictures must have {len(self.mean)} channels, got {self.encoder.channels}")
        return self


class Sampler(nn.Module):
    """A small network on one output pixel: its feature, its place in it, and the size of a pixel.

    Args:
        width: N.
        hidden: widths of the hidden layers, may be none.
        outputs: values for each pixel.
    """

    def __init__(self, width: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.width = width
        sizes = (width + 4, *hidden, outputs)
        layers: list[nn.Module] = []
        for inputs, size in pairwise(sizes):
            layers += [nn.Linear(inputs, size), nn.ReLU()]
        first, *rest = layers[:-1]
        assert isinstance(first, nn.Linear)
        self.first = first
        self.rest = nn.Sequential(*rest)
        self.operations = sum(2 * a * b for a, b in pairwise(sizes))

    def split(self, features: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first layer's part for features, `R N` to `R K`, and for places, `S 4` to `S K`."""
        weight, bias = self.first.weight, self.first.bias
        return F.linear(features, weight[:, : self.width], bias), F.linear(places, weight[:, self.width :])

    def forward(self, features: Tensor, places: Tensor) -> Tensor:
        """Return all pixels, `R S outputs`."""
        by_feature, by_place = self.split(features, places)
        return self.rest(by_feature[:, None] + by_place)

    def some(self, features: Tensor, places: Tensor, chosen: Tensor) -> Tensor:
        """Return the pixels whose numbers in `R S`, read row by row, are in `chosen`; gives `len outputs`."""
        by_feature, by_place = self.split(features, places)
        parts = [
            self.rest(by_feature[part // len(places)] + by_place[part % len(places)])
            for part in chosen.split(_CHUNK)
        ]
        return torch.cat(parts)


class PCSR(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C sH sW`, any H and W from 1 up."""

    def __init__(self, config: PCSRConfig) -> None:
        super().__init__()
        self.config: PCSRConfig = config
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("places", _places(config.scale), persistent=False)
        self.mean: Tensor
        self.places: Tensor
        self.encoder = config.encoder.build()
        width, channels = self.encoder.width, self.encoder.channels
        self.heavy_sampler = Sampler(width, config.heavy, channels)
        self.light_sampler = Sampler(width, config.light, channels)
        self.classifier = Sampler(width, config.classifier, 2)
        self.router = Router()

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out, `scale` times as large; clustering looks at the whole picture."""
        # Bilinear enlarging looks one pixel far, as refinement does, whose neighbours look on their own.
        halo = max(self.encoder.reach, 1) + self.config.refinement
        return Contract(
            scale=self.config.scale,
            channels=self.encoder.channels,
            halo=None if self.config.adaptive else halo,
            effort=True,
        )

    @property
    def costs(self) -> tuple[float, float]:
        """Shares that a light and a heavy pixel have of their summed cost, trunk included in both."""
        subpixels = self.config.scale**2
        light, heavy = (
            self.encoder.operations + subpixels * sampler.operations
            for sampler in (self.light_sampler, self.heavy_sampler)
        )
        return light / (light + heavy), heavy / (light + heavy)

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.mean
        features = self._features(x)  # R N
        probability = self._probability(features)  # R S
        if self.training:
            weight = probability[..., None]
            light, heavy = (
                sampler(features, self.places) for sampler in (self.light_sampler, self.heavy_sampler)
            )
            return self._picture((1 - weight) * light + weight * heavy, x) + self.mean
        hard = self._hard(probability, batch=len(x))
        output = self._picture(self._sampled(features, hard), x)
        if self.config.refinement:
            output = _refined(output, self._spread(hard[..., None], x))
        return output + self.mean

    def routes(self, x: Tensor) -> Tensor:
        """Tell which output pixels the heavy sampler makes: `B C H W` to booleans `B 1 sH sW`."""
        x = x - self.mean
        hard = self._hard(self._probability(self._features(x)), batch=len(x))
        return self._spread(hard[..., None], x)

    def _features(self, x: Tensor) -> Tensor:
        return self.encoder(x).permute(0, 2, 3, 1).flatten(0, 2)

    def _probability(self, features: Tensor) -> Tensor:
        return self.router(self.classifier(features, self.places))

    def _hard(self, probability: Tensor, *, batch: int) -> Tensor:
        """Decide `R S` by effort where it is set, else as published."""
        if self.effort is not None:
            return exceeds(probability, self.effort)
        if self.config.adaptive:
            return cluster(probability.view(batch, -1)).view_as(probability)
        return probability > threshold_of_costs(*self.costs, self.config.k)

    def _sampled(self, features: Tensor, hard: Tensor) -> Tensor:
        """Run each sampler on its pixels: `R S C`."""
        if torch.compiler.is_compiling():
            light, heavy = (
                sampler(features, self.places) for sampler in (self.light_sampler, self.heavy_sampler)
            )
            return torch.where(hard[..., None], heavy, light)
        pixels = features.new_empty(hard.numel(), self.encoder.channels)
        flat = hard.flatten()
        for chosen, sampler in ((flat, self.heavy_sampler), (~flat, self.light_sampler)):
            numbers = chosen.nonzero()[:, 0]
            if len(numbers):
                pixels[numbers] = sampler.some(features, self.places, numbers)
        return pixels.view(*hard.shape, -1)

    def _spread(self, values: Tensor, x: Tensor) -> Tensor:
        """Lay out `R S C` as the picture `B C sH sW`."""
        batch, _, height, width = x.shape
        scale = self.config.scale
        grid = values.view(batch, height, width, scale, scale, values.shape[-1])
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height * scale, width * scale)

    def _picture(self, values: Tensor, x: Tensor) -> Tensor:
        enlarged = F.interpolate(
            x, scale_factor=float(self.config.scale), mode="bilinear", align_corners=False
        )
        return self._spread(values, x) + enlarged


def _places(scale: int) -> Tensor:
    """Return what a sampler is told of each output pixel in a feature, `S 4`.

    Its offset from the feature's middle, down and right, and its height and
    width, all in units of half an input pixel.
    """
    offsets = (2 * torch.arange(scale) + 1) / scale - 1
    down, right = torch.meshgrid(offsets, offsets, indexing="ij")
    sizes = torch.full((scale**2, 2), 2 / scale)
    return torch.cat([down.reshape(-1, 1), right.reshape(-1, 1), sizes], 1)


def _refined(picture: Tensor, hard: Tensor) -> Tensor:
    """Replace light pixels that have a heavy neighbour by the mean of their 3×3; the border stays."""
    beside = F.max_pool2d(hard.to(picture.dtype), 3, stride=1, padding=1) > 0
    inner = torch.zeros_like(beside)
    inner[..., 1:-1, 1:-1] = True
    mean = F.avg_pool2d(picture, 3, stride=1, padding=1)
    return torch.where(~hard & beside & inner, mean, picture)


_FSRCNN = PCSRConfig(
    encoder=FSRCNNBodyConfig(width=48),
    heavy=(58, 58, 58, 58), light=(10, 10, 10), classifier=(), mean=(0.0, 0.0, 0.0),
)  # fmt: skip

VARIANTS = {
    "pcsr-carn-x4": Variant(PCSRConfig(), parameters=168_970),
    "pcsr-fsrcnn-x4": Variant(_FSRCNN, parameters=24_502),
}

NETWORK = PCSR
"""What a variant's config builds."""

OFFICIAL_SETTINGS = {name: name for name in ("scale", "mean", "k", "adaptive", "refinement")}
"""Authors' arguments that their checkpoints do not show, and our names for them."""

EXEMPTIONS = {
    "halo": "the last pixel acts through refinement, so only where light and heavy meet; see test_pcsr.py",
}


def tiny(config: PCSRConfig) -> PCSRConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    changes = {"width": 8, "shrunk": 4, "depth": 2} if config.encoder.name == "fsrcnn" else {"width": 8}
    return config.model_copy(
        update={
            "encoder": config.encoder.model_copy(update=changes),
            "heavy": (8, 8),
            "light": (4,),
            "classifier": config.classifier and (4,),
        }
    )


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint of the second phase, which has all parts.

    It serves any scale, so it is taken to be for x4, as all the authors' are; its
    mean colour is that of the authors' settings for its trunk.

    Returns:
        Our config, state and steps, or None where the keys are not PCSR's.
    """
    samplers = ("heavy_sampler", "light_sampler", "classifier")
    if not all(f"{sampler}.imnet.layers.0.weight" in state for sampler in samplers):
        return None
    trunk = {
        key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")
    }
    found = carn.from_official(trunk) or fsrcnn.from_official(trunk)
    if found is None:
        return None
    encoder, ours = found
    ours = {f"encoder.{name}": value for name, value in ours.items()}
    hidden = {}
    for sampler in samplers:
        prefix = f"{sampler}.imnet.layers."
        numbers = sorted(
            int(key.removeprefix(prefix).removesuffix(".weight"))
            for key in state
            if key.startswith(prefix) and key.endswith(".weight")
        )
        hidden[sampler] = tuple(state[f"{prefix}{number}.weight"].shape[0] for number in numbers[:-1])
        for number in numbers:
            name = f"{sampler}.rest.{number - 1}" if number else f"{sampler}.first"
            ours |= {f"{name}.{part}": state[f"{prefix}{number}.{part}"] for part in ("weight", "bias")}
    config = PCSRConfig(
        encoder=encoder,
        heavy=hidden["heavy_sampler"],
        light=hidden["light_sampler"],
        classifier=hidden["classifier"],
        mean=RGB_MEAN if isinstance(encoder, CARNBodyConfig) else (0.0, 0.0, 0.0),
    )
    return Official(config, ours)


def golden(network: PCSR, metadata: Mapping[str, str], x: Tensor) -> dict[str, Tensor]:
    """Return what the authors' code gives in a recorded case, by the names of its tensors.

    Args:
        network: built and filled from the case.
        metadata: of the case; "pipeline" tells training from use.
        x: the case's input.
    """
    if '"train"' not in metadata["pipeline"]:
        return {"output": network(x), "flag": network.routes(x), "cost_list": torch.tensor(network.costs)}
    heard: list[Tensor] = []
    with network.router.register_forward_hook(lambda _module, _input, output: heard.append(output)):
        output = network.train()(x)
    # The authors' pixels run along the rows of the whole picture.
    heavy = network._spread(heard[0][..., None], x).flatten(1)
    return {"output": output, "prob": torch.stack([1 - heavy, heavy], -1)}
