"""VGG: the classifier whose features perceptual losses are used to compare.

Simonyan, Zisserman, ICLR 2015, arXiv:1409.1556, table 1 (E is VGG-19): blocks of 3×3 convolutions, each
followed by a ReLU, with a 2×2 maximum between blocks. The classifier at its end is left out.

Layers are named as in the literature: block and number within it, "conv5_4" before and "relu5_4" after the
activation, "pool4" after a block. Shapes: B 3 H W, H and W from 2^(blocks-1) up; block b has sides of
H / 2^(b-1), rounded down.

Weights come from the user, as the state of torchvision's (or timm's) VGG: keys `features.0.weight` or
`0.weight` on, any widths and depths, with or without batch norm, the end cut off or not. None are shipped
and none are downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from relume.core.config import Config
from relume.core.errors import ConfigError, UnknownNameError
from relume.nn.encoders.base import Encoder

_KEY = re.compile(r"(features\.)?(\d+)\.weight")


class VGGConfig(Config):
    """Settings of a VGG; the defaults are VGG-19.

    Attributes:
        widths: channels of each convolution, block by block.
        channels: of the pictures.
        batch_norm: whether each convolution is followed by one.
    """

    widths: Annotated[tuple[tuple[PositiveInt, ...], ...], Field(min_length=1)] = (
        (64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4,
    )  # fmt: skip
    channels: PositiveInt = 3
    batch_norm: bool = False


class VGG(Encoder):
    """The trunk, run as far as the deepest layer asked for.

    Args:
        config: its shape.
        layers: which features to give; the default is the last convolution, before activation, as in ESRGAN.
        imagenet: whether pictures are centred and scaled by ImageNet's statistics first.

    Raises:
        UnknownNameError: it has no such layer.
    """

    def __init__(self, config: VGGConfig, layers: Iterable[str] = (), *, imagenet: bool = True) -> None:
        stack: list[nn.Module] = []
        names: list[str] = []
        before = config.channels
        for block, widths in enumerate(config.widths, 1):
            if block > 1:
                stack.append(nn.MaxPool2d(2))
                names.append(f"pool{block - 1}")
            for number, width in enumerate(widths, 1):
                stack.append(nn.Conv2d(before, width, 3, padding=1))
                names.append(f"conv{block}_{number}")
                if config.batch_norm:
                    stack.append(nn.BatchNorm2d(width))
                    names.append(f"norm{block}_{number}")
                stack.append(nn.ReLU())
                names.append(f"relu{block}_{number}")
                before = width
        super().__init__(nn.Sequential(*stack).eval(), imagenet=imagenet, channels=config.channels)
        self.config = config
        self.names = tuple(names)
        last = next(name for name in reversed(self.names) if name.startswith("conv"))
        self.layers = tuple(layers) or (last,)
        for layer in self.layers:
            if layer not in self.names:
                raise UnknownNameError("layer of VGG", layer, self.names)

    def train(self, mode: bool = True) -> VGG:  # noqa: ARG002
        """Stay in evaluation mode: batch norms must not learn from what is judged."""
        return super().train(False)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Raises: ConfigError: the pictures are too small for the deepest layer."""
        found: dict[str, Tensor] = {}
        assert isinstance(self.module, nn.Sequential)
        for name, layer in zip(self.names, self.module, strict=True):
            if isinstance(layer, nn.MaxPool2d) and min(x.shape[-2:]) < 2:
                raise ConfigError(
                    f"pictures are too small for layer {self.layers[-1]!r} of VGG; raise data.patch or "
                    "choose an earlier layer"
                )
            x = layer(x)
            if name in self.layers:
                found[name] = x
            if len(found) == len(self.layers):
                break
        return found


def from_official(state: Mapping[str, Tensor]) -> tuple[VGGConfig, dict[str, Tensor]] | None:
    """Recognise the weights of a VGG by keys and shapes.

    Returns:
        The config and the state of `VGG.module`, or None where it is something else.
    """
    found = [(match, value) for key, value in state.items() if (match := _KEY.fullmatch(key))]
    prefixes = {match[1] or "" for match, _ in found}
    if len(prefixes) != 1:
        return None
    prefix = prefixes.pop()
    convolutions = sorted((int(match[2]), value) for match, value in found if value.ndim == 4)
    if not convolutions or convolutions[0][0] != 0:
        return None
    if any(
        value.shape[2:] != (3, 3) or f"{prefix}{index}.bias" not in state for index, value in convolutions
    ):
        return None
    batch_norm = f"{prefix}1.running_mean" in state
    # Between two convolutions lie a ReLU, with batch norm that too, and at the end of a block a maximum.
    step = 3 if batch_norm else 2
    blocks: list[list[int]] = [[convolutions[0][1].shape[0]]]
    for (before, last), (index, value) in pairwise(convolutions):
        if index - before not in (step, step + 1) or value.shape[1] != last.shape[0]:
            return None
        if index - before == step + 1:
            blocks.append([])
        blocks[-1].append(value.shape[0])
    config = VGGConfig(
        widths=tuple(tuple(widths) for widths in blocks),
        channels=convolutions[0][1].shape[1],
        batch_norm=batch_norm,
    )
    ours = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix) and key.removeprefix(prefix)[:1].isdigit()
    }
    return config, ours
