"""Operators that fit a picture's planes to a model's channels; `nn.channels` says what is done.

Shapes: B batch, C channels of the picture, h w input, s scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from relume.infer.engines.base import RowStream, Streaming
from relume.infer.operators import Operator
from relume.nn.channels import CHROMA_REACH, run_picture


@dataclass(frozen=True)
class Fitted:
    """Runs pictures of other channels through an operator.

    Attributes:
        operator: what is run, on channels of its own.
        channels: C of the pictures, 1 or 3.
        luma: whether the operator's one channel is luma of colour pictures.
    """

    operator: Operator
    channels: int
    luma: bool

    @property
    def scale(self) -> int:
        """As inside."""
        return self.operator.scale

    @property
    def halo(self) -> int | None:
        """As inside, or bicubic's where that enlarges the colours and looks farther."""
        halo = self.operator.halo
        return max(halo, CHROMA_REACH) if self.luma and halo is not None else halo

    def __call__(self, low: Tensor) -> Tensor:
        """Map `B C h w` to `B C sh sw`."""
        return run_picture(self.operator, low, channels=self.operator.channels, luma=self.luma)


class StreamingGray(Fitted):
    """Gray pictures through an operator of colour that streams."""

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


def fitted(operator: Operator, channels: int, *, luma: bool) -> Operator:
    """Return the operator for pictures of so many channels.

    Args:
        operator: a model, or models one after the other.
        channels: of the pictures, 1 or 3.
        luma: whether the models take luma of colour pictures (`Contract.luma`).
    """
    if channels == operator.channels and not luma:
        return operator
    if channels == 1 and not luma and isinstance(operator, Streaming):
        return StreamingGray(operator, channels, luma)
    return Fitted(operator, channels, luma)
