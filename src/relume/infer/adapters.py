"""Operators that fit a picture's planes to a model's channels.

Shapes: B batch, C channels of the picture, N channels of the model, h w input, s scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from relume.infer.engines.base import RowStream, Streaming
from relume.infer.operators import Operator


@dataclass(frozen=True)
class Gray:
    """Runs one plane through a model of colour: all channels alike, and their mean taken."""

    operator: Operator
    channels: int = 1

    @property
    def scale(self) -> int:
        """As inside."""
        return self.operator.scale

    @property
    def halo(self) -> int | None:
        """As inside."""
        return self.operator.halo

    def __call__(self, low: Tensor) -> Tensor:
        """Map `B 1 h w` to `B 1 sh sw`."""
        return self.operator(low.expand(-1, self.operator.channels, -1, -1)).mean(1, keepdim=True)


class StreamingGray(Gray):
    """The same, for an operator that streams."""

    def stream(self, height: int, width: int) -> RowStream:
        """Begin a picture of that size."""
        assert isinstance(self.operator, Streaming)
        return _GrayStream(self.operator.stream(height, width), self.operator.channels)

    def stream_bytes(self, width: int) -> float:
        """Return the memory that a stream of that width takes, in bytes; infinite where it cannot stream."""
        assert isinstance(self.operator, Streaming)
        return self.operator.stream_bytes(width)


class _GrayStream:
    def __init__(self, inner: RowStream, channels: int) -> None:
        self._inner, self._channels = inner, channels
        self.strip = inner.strip

    def push(self, rows: Tensor) -> Tensor:
        return self._inner.push(rows.expand(self._channels, -1, -1)).mean(0, keepdim=True)


@dataclass(frozen=True)
class Apart:
    """Runs each channel of a picture by itself through a model of one channel."""

    operator: Operator
    channels: int = 3

    @property
    def scale(self) -> int:
        """As inside."""
        return self.operator.scale

    @property
    def halo(self) -> int | None:
        """As inside."""
        return self.operator.halo

    def __call__(self, low: Tensor) -> Tensor:
        """Map `B C h w` to `B C sh sw`."""
        output = self.operator(low.flatten(0, 1)[:, None])
        return output.unflatten(0, low.shape[:2])[:, :, 0]


def fitted(operator: Operator, channels: int) -> Operator:
    """Return the operator for pictures of so many channels, 1 or 3."""
    if channels == operator.channels:
        return operator
    if operator.channels == 1:
        return Apart(operator, channels)
    if channels == 1:
        return StreamingGray(operator) if isinstance(operator, Streaming) else Gray(operator)
    raise ValueError(f"a picture of {channels} channels does not fit a model of {operator.channels}")
