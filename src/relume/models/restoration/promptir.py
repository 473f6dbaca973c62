"""PromptIR: Restormer with prompts, learnt pictures of what may be wrong, mixed by what the features say.

Potlapalli, Zamir, Khan, Khan, NeurIPS 2023, arXiv:2306.13090. `forward` follows figure 2, the prompts eq. 2;
blocks from `nn.restormer`. Shapes: B batch, C picture channels, N width (2ˡ times the first after l
halvings), P prompts of p channels, H W.

    prompt: conv(enlarge(Σ_i w_i P_i)),   w = softmax(W mean x)
    use: reduce(block([x, prompt]))       before each doubling

Departs from the paper and its code:
- Widths follow `width` and `prompt_widths`; the authors' code has those of N = 48 written out.
- Layers of the authors' code that nothing uses (`chnl_reduce`, `reduce_noise_channel`) are left out; so does
  DCPT's code (arXiv:2501.15510), whose count of parameters is this one's.
- Pictures are continued mirrored to multiples of 8 and cut again, as Restormer's tests do.
- A program of `torch.export` (the engine "compile") continues a side that one multiple holds to two of it;
  all else does as the authors do there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.card import Card, Task
from relume.core.config import Config
from relume.core.contract import Contract
from relume.core.variants import Official, Variant, renamed_state
from relume.nn.network import Network
from relume.nn.padding import cut, mirrored_to_multiple
from relume.nn.restormer import RENAMES, Block, Double, Halve, depth_at, ratio_of

CARD = Card(
    name="promptir",
    title="PromptIR: Prompting for All-in-One Image Restoration",
    summary=(
        "One network for several kinds of damage. Its decoder is handed prompts, small learnt pictures mixed "
        "by what the features show, which tell it what is wrong: haze, rain, noise."
    ),
    when="When one network shall mend several kinds of damage without being told which.",
    venue="NeurIPS 2023",
    task=Task.RESTORATION,
    arxiv="2306.13090",
    code="https://github.com/va1shn9v/PromptIR",
)

_MULTIPLE = 8
_Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
_Three = tuple[PositiveInt, PositiveInt, PositiveInt]


class PromptIRConfig(Config):
    """Settings of a PromptIR; the defaults are the paper's.

    Attributes:
        channels: C of the pictures.
        width: N at full size.
        depths: transformer blocks at each size, from full size to the smallest.
        refinement: blocks at full size after the decoder.
        attention_heads: at each size; the blocks that mix prompts in have those of the third.
        ratio: hidden width of the feed-forward networks over their width.
        prompts: P at each size.
        prompt_widths: p, from the half size to the smallest.
        prompt_sizes: sides of the prompts, likewise.
        bias: whether convolutions have one.
    """

    channels: PositiveInt = 3
    width: PositiveInt = 48
    depths: _Four = (4, 6, 6, 8)
    refinement: PositiveInt = 4
    attention_heads: _Four = (1, 2, 4, 8)
    ratio: PositiveFloat = 2.66
    prompts: PositiveInt = 5
    prompt_widths: _Three = (64, 128, 320)
    prompt_sizes: _Three = (64, 32, 16)
    bias: bool = False

    @property
    def mixed_widths(self) -> tuple[int, int, int]:
        """Channels of features and prompt together, from the half size to the smallest."""
        first, second, third = self.prompt_widths
        return 2 * self.width + first, 4 * self.width + second, 8 * self.width + third

    @model_validator(mode="after")
    def _fits(self) -> PromptIRConfig:
        if self.width % 2:
            raise ValueError(f"width is halved, so it must be even, got {self.width}")
        places = list(zip(self.attention_heads, [self.width * 2**level for level in range(4)], strict=True))
        places += [(self.attention_heads[2], width) for width in self.mixed_widths]
        for heads, width in [*places, (self.attention_heads[0], 2 * self.width)]:
            if width % heads:
                raise ValueError(f"{heads} attention heads cannot share {width} channels; choose a divisor")
        return self


class Prompt(nn.Module):
    """Prompts weighed by the features' mean, as large as the features."""

    def __init__(self, features: int, *, count: int, width: int, size: int) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.rand(count, width, size, size))
        self.weigh = nn.Linear(features, count)
        self.smooth = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weigh(x.mean((2, 3))).softmax(1)  # B P
        prompt = torch.tensordot(weights, self.prompts.to(weights.dtype), 1)  # B p size size
        smooth: Tensor = self.smooth(F.interpolate(prompt, x.shape[2:], mode="bilinear"))
        return smooth


class Interaction(nn.Module):
    """Mixes a prompt into features: a block over both, then a 1×1 convolution."""

    def __init__(self, features: int, to: int, level: int, config: PromptIRConfig) -> None:
        super().__init__()
        width, size = config.prompt_widths[level], config.prompt_sizes[level]
        self.prompt = Prompt(features, count=config.prompts, width=width, size=size)
        heads = config.attention_heads[2]
        self.mix = Block(features + width, heads=heads, ratio=config.ratio, bias=config.bias)
        self.reduce = nn.Conv2d(features + width, to, 1, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.reduce(self.mix(torch.cat([x, self.prompt(x)], 1)))
        return mixed


class PromptIR(Network):
    """The whole network. Takes `B C H W` with values 0..1 and gives `B C H W`, any H and W from 1 up."""

    def __init__(self, config: PromptIRConfig) -> None:
        super().__init__()
        self.config: PromptIRConfig = config
        one, two, four, eight = (config.width * 2**level for level in range(4))
        bias = config.bias

        def blocks(width: int, level: int, depth: int) -> nn.Sequential:
            heads = config.attention_heads[level]
            return nn.Sequential(
                *(Block(width, heads=heads, ratio=config.ratio, bias=bias) for _ in range(depth))
            )

        self.intro = nn.Conv2d(config.channels, one, 3, padding=1, bias=bias)
        self.encoders = nn.ModuleList(
            blocks(width, level, config.depths[level]) for level, width in enumerate((one, two, four))
        )
        self.downs = nn.ModuleList(Halve(width) for width in (one, two, four))
        self.middle = blocks(eight, 3, config.depths[3])
        # From small to large; prompts come in before each doubling.
        self.interactions = nn.ModuleList(
            Interaction(features, to, level, config)
            for features, to, level in ((eight, four, 2), (four, four, 1), (two, two, 0))
        )
        self.ups = nn.ModuleList(Double(width) for width in (four, four, two))
        # At full size the skip stays beside what comes from below, and the width doubled.
        self.fuses = nn.ModuleList(
            [
                nn.Conv2d(two + four, four, 1, bias=bias),
                nn.Conv2d(two + two, two, 1, bias=bias),
                nn.Identity(),
            ]
        )
        self.decoders = nn.ModuleList(
            blocks(width, level, config.depths[level]) for width, level in ((four, 2), (two, 1), (two, 0))
        )
        self.refine = blocks(two, 0, config.refinement)
        self.ending = nn.Conv2d(two, config.channels, 3, padding=1, bias=bias)

    @property
    def contract(self) -> Contract:
        """One picture in, one picture out of the same size; the attention makes the reach unbounded."""
        return Contract(scale=1, channels=self.config.channels, halo=None)

    def forward(self, x: Tensor) -> Tensor:
        features = self.intro(mirrored_to_multiple(x, _MULTIPLE))  # B N H W
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(features))
            features = down(skips[-1])  # B 2N H/2 W/2
        features = self.middle(features)
        for interact, up, fuse, decoder in zip(
            self.interactions, self.ups, self.fuses, self.decoders, strict=True
        ):
            features = decoder(fuse(torch.cat([up(interact(features)), skips.pop()], 1)))
        return cut(self.ending(self.refine(features)), x) + x


VARIANTS = {"promptir": Variant(PromptIRConfig(), parameters=35_376_967)}

NETWORK = PromptIR
"""What a variant's config builds."""

OFFICIAL_SETTINGS: dict[str, str] = {}
"""Authors' arguments that their checkpoints do not show: none."""


def tiny(config: PromptIRConfig) -> PromptIRConfig:
    """Return a small relative of a variant, quick enough to test everything on."""
    small = {"width": 2, "depths": (1, 1, 1, 1), "refinement": 1, "attention_heads": (1, 2, 2, 2)}
    return config.model_copy(
        update={**small, "ratio": 1.5, "prompts": 2, "prompt_widths": (2, 4, 4), "prompt_sizes": (8, 4, 3)}
    )


# Authors' names beside the shared ones, and ours.
_RENAMES = (
    (r"^encoder_level(\d)\.", lambda match: f"encoders.{int(match[1]) - 1}."),
    (r"^decoder_level(\d)\.", lambda match: f"decoders.{3 - int(match[1])}."),
    (r"^down(\d)_\d\.body\.", lambda match: f"downs.{int(match[1]) - 1}."),
    (r"^up(\d)_\d\.body\.", lambda match: f"ups.{4 - int(match[1])}."),
    (r"^reduce_chan_level(\d)\.", lambda match: f"fuses.{3 - int(match[1])}."),
    (r"^prompt(\d)\.prompt_param$", lambda match: f"interactions.{3 - int(match[1])}.prompt.prompts"),
    (r"^prompt(\d)\.linear_layer\.", lambda match: f"interactions.{3 - int(match[1])}.prompt.weigh."),
    (r"^prompt(\d)\.conv3x3\.", lambda match: f"interactions.{3 - int(match[1])}.prompt.smooth."),
    (r"^noise_level(\d)\.", lambda match: f"interactions.{3 - int(match[1])}.mix."),
    (r"^reduce_noise_level(\d)\.", lambda match: f"interactions.{3 - int(match[1])}.reduce."),
)
_UNUSED = re.compile(r"^(chnl_reduce|reduce_noise_channel_)\d\.")


def from_official(state: Mapping[str, Tensor]) -> Official | None:
    """Recognise an authors' checkpoint, or one of DCPT's code.

    The ratio is the shortest number that gives the hidden widths.

    Returns:
        Our config, state and steps, or None where the keys are not PromptIR's.
    """
    if "prompt1.prompt_param" not in state or "noise_level1.attn.temperature" not in state:
        return None
    ours = renamed_state(state, (*RENAMES, *_RENAMES), computed=_UNUSED)
    prompts = [f"interactions.{place}.prompt.prompts" for place in (2, 1, 0)]
    for name in prompts:
        ours[name] = ours[name][0]  # they have a batch of one
    width, channels = ours["intro.weight"].shape[:2]
    places = ("encoders.0", "encoders.1", "encoders.2", "middle")
    values = {
        "channels": channels,
        "width": width,
        "depths": tuple(depth_at(place, ours) for place in places),
        "refinement": depth_at("refine", ours),
        "attention_heads": tuple(len(ours[f"{place}.0.attention.temperature"]) for place in places),
        "ratio": ratio_of([ours[f"{place}.0.feed_forward.project.weight"].shape for place in places]),
        "prompts": len(ours[prompts[0]]),
        "prompt_widths": tuple(ours[name].shape[1] for name in prompts),
        "prompt_sizes": tuple(ours[name].shape[2] for name in prompts),
        "bias": "intro.bias" in ours,
    }
    return Official(PromptIRConfig.parse(values, where="a PromptIR of its authors"), ours)
