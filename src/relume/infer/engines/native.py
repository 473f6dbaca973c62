"""Kernels of our own, for the layers that they cover (`nn.native`)."""

from __future__ import annotations

from torch import Tensor

from relume.infer.engines.base import Engine, EngineError, Place, RowStream
from relume.nn.convformer import FoldedConvFormer
from relume.nn.native.build import NativeError, find_compiler
from relume.nn.native.convformer import NativeConvFormer
from relume.nn.network import Network


class NativeEngine(Engine):
    """Runs folded ConvFormers (CFSR) in fused kernels, built once by the machine's C++ compiler."""

    name = "native"
    exports = False

    def __init__(self, network: Network, place: Place) -> None:
        super().__init__(network, place)
        folded = network.folded()
        if not isinstance(folded, FoldedConvFormer):
            raise EngineError(_NOT_COVERED)
        try:
            self._kernels = NativeConvFormer(folded, threads=place.threads)
        except NativeError as error:
            raise EngineError(str(error)) from error

    @classmethod
    def missing(cls) -> str | None:
        """The compiler may be."""
        if find_compiler() is None:
            return "it needs a C++ compiler (g++, clang++ or CXX)"
        return None

    @classmethod
    def refuses(cls, network: Network, place: Place) -> str | None:
        """Also what the kernels do not cover."""
        said = super().refuses(network, place)
        if said is None and not isinstance(network.folded(), FoldedConvFormer):
            return _NOT_COVERED
        return said

    def __call__(self, low: Tensor) -> Tensor:
        return self._kernels(low)

    def stream(self, height: int, width: int) -> RowStream:
        """Begin a picture that comes in strips of rows."""
        return self._kernels.stream(height, width)

    def stream_bytes(self, width: int) -> int:
        """Return the memory that a stream of that width takes, in bytes."""
        return self._kernels.bytes_at_work(width)


_NOT_COVERED = "the native kernels cover CFSR alone so far"

ENGINE = NativeEngine
