"""The small interface behind which every engine stands."""

from __future__ import annotations

import importlib.util
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import metadata
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from relume.core.errors import RelumeError
from relume.core.machine import most_threads
from relume.nn.network import Network

Precision = Literal["fp32", "bf16", "fp16"]

TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 2e-2}
"""Largest difference from PyTorch in float32 that most engines may show, for values 0..1."""


class EngineError(RelumeError):
    """An engine that cannot be had here, or cannot run this model."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how an engine is to run.

    Attributes:
        device: "cpu", "cuda", "cuda:1", "vulkan" …
        precision: of the arithmetic; input and output are float32 whatever it is.
        threads: on the CPU.

    Raises:
        RelumeError: no threads, or far more than there are cores.
    """

    device: str = "cpu"
    precision: Precision = "fp32"
    threads: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= most_threads():
            raise RelumeError(
                f"{self.threads} threads make no sense here: this machine has {os.cpu_count()} cores; "
                f"choose 1 … {most_threads()}, or leave --threads out"
            )


class RowStream(Protocol):
    """One picture on its way through an engine in strips of rows."""

    strip: int
    """Most input rows that one `push` takes."""

    def push(self, rows: Tensor) -> Tensor:
        """Take the next rows `C h W`; return the output rows `C sh' sW` that they complete."""


class Engine(ABC):
    """A model made ready on one machine; an operator (`infer.operators`).

    Args:
        network: the model, in evaluation mode; an engine leaves it as it is.
        place: where to run.

    Raises:
        EngineError: the engine cannot be used here, or not for this model.
    """

    name: ClassVar[str]
    """What `--engine` calls it."""
    package: ClassVar[str | None] = None
    """Python package that it needs and that relume does without, and the extra of the same name."""
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    exports: ClassVar[bool] = True
    """Whether it runs a graph taken from the model, rather than the model itself."""
    slow_to_make: ClassVar[bool] = False
    """Whether making it ready takes so long that it must be asked for."""

    def __init__(self, network: Network, place: Place) -> None:
        self.place = place
        self._contract = network.contract

    @classmethod
    def missing(cls) -> str | None:
        """Return why the engine cannot be used on this machine, or None where it can."""
        if cls.package is not None and importlib.util.find_spec(cls.package) is None:
            return f"it needs the package {cls.package}: pip install 'relume[{cls.package}]'"
        return None

    @classmethod
    def version(cls) -> str:
        """Return what changes when the engine does, so that older measurements do not count."""
        return metadata.version(cls.package or "torch")

    @classmethod
    def refuses(cls, network: Network, place: Place) -> str | None:
        """Return why the engine cannot run this model there, or None where nothing speaks against it."""
        kind = place.device.split(":")[0]
        if kind not in cls.devices:
            return f"it runs on {', '.join(cls.devices)}, not on {place.device}"
        if place.precision not in cls.precisions:
            return f"it computes in {', '.join(cls.precisions)}, not in {place.precision}"
        if cls.exports and network.contract.effort:
            return "the model decides its way pixel by pixel, which no exported graph does"
        return None

    @property
    def tolerance(self) -> float:
        """Largest difference from PyTorch in float32 that is accepted, for values 0..1."""
        return TOLERANCES[self.place.precision]

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.place.device

    @property
    def scale(self) -> int:
        """Output pixels for each input pixel along a side."""
        return self._contract.scale

    @property
    def channels(self) -> int:
        """Channels of input and output."""
        return self._contract.channels

    @property
    def halo(self) -> int | None:
        """Input pixels, from its own, that an output pixel can look away; None where unbounded."""
        return self._contract.halo

    @abstractmethod
    def __call__(self, low: Tensor) -> Tensor:
        """Map `B C h w`, float32 of 0..1 on the CPU, to `B C sh sw` likewise, not clamped."""

    def __str__(self) -> str:
        precision = "" if self.place.precision == "fp32" else f" in {self.place.precision}"
        return f"{self.name} on {self.place.device}{precision}"


@runtime_checkable
class Streaming(Protocol):
    """An operator that takes a picture row by row and gives the pixels of the whole, without tiles."""

    def stream(self, height: int, width: int) -> RowStream:
        """Begin a picture of that size."""

    def stream_bytes(self, width: int) -> float:
        """Return the memory that a stream of that width takes, in bytes; infinite where it cannot stream."""
