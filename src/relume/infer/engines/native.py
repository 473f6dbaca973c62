"""Kernels of our own, for the layers that they cover (`nn.native`)."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from relume.infer.engines.base import Engine, EngineError, Place, RowStream
from relume.nn.convformer import FoldedConvFormer
from relume.nn.native.build import SOURCE, NativeError, find_compiler
from relume.nn.native.convformer import NativeConvFormer
from relume.nn.network import Network

_NOT_COVERED = "the native kernels cover CFSR alone so far, by itself or inside another model"


class NativeEngine(Engine):
    """Runs folded ConvFormers (CFSR) in fused kernels, built once by the machine's C++ compiler.

    Where one is a part of another model, the rest of that is left to PyTorch.
    """

    name = "native"
    exports = False

    def __init__(self, network: Network, place: Place) -> None:
        super().__init__(network, place)
        folded = network.folded()
        try:
            self._kernels: NativeConvFormer | None = None
            if isinstance(folded, FoldedConvFormer):
                self._kernels = NativeConvFormer(folded, threads=place.threads)
            elif not _put_into(folded, place.threads):
                raise EngineError(_NOT_COVERED)
        except NativeError as error:
            raise EngineError(str(error)) from error
        self._module = folded

    @classmethod
    def missing(cls) -> str | None:
        """The compiler may be."""
        if find_compiler() is None:
            return "it needs a C++ compiler (g++, clang++ or CXX)"
        return None

    @classmethod
    def version(cls) -> str:
        """Also the kernels' source."""
        return f"{super().version()} {hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]}"

    @classmethod
    def refuses(cls, network: Network, place: Place) -> str | None:
        """Also what the kernels do not cover."""
        said = super().refuses(network, place)
        if said is None and not any(
            isinstance(part, FoldedConvFormer) for part in network.folded().modules()
        ):
            return _NOT_COVERED
        return said

    @torch.no_grad()
    def __call__(self, low: Tensor) -> Tensor:
        return self._kernels(low) if self._kernels else self._module(low)

    def stream(self, height: int, width: int) -> RowStream:
        """Begin a picture that comes in strips of rows."""
        assert self._kernels
        return self._kernels.stream(height, width)

    def stream_bytes(self, width: int) -> float:
        """Return the memory that a stream of that width takes, in bytes; infinite where it cannot stream."""
        return self._kernels.bytes_at_work(width) if self._kernels else math.inf


class _Part(nn.Module):
    """A folded ConvFormer inside another model."""

    def __init__(self, kernels: NativeConvFormer) -> None:
        super().__init__()
        self._kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        return self._kernels(x)


def _put_into(module: nn.Module, threads: int) -> bool:
    """Replace the folded ConvFormers inside a model's folded form; tell whether there were any."""
    found = False
    for name, child in list(module.named_children()):
        if isinstance(child, FoldedConvFormer):
            setattr(module, name, _Part(NativeConvFormer(child, threads=threads)))
            found = True
        else:
            found |= _put_into(child, threads)
    return found


ENGINE = NativeEngine
