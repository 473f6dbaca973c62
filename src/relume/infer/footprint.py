"""How much memory an operator takes for each pixel of its input."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from relume.core.memory import memory_taken
from relume.nn.network import Network

_SIDE = 64
_UNSEEN = 1.5
"""Factor for what libraries behind PyTorch take beside its own tensors (packed copies, scratch)."""

_PROBED = 128
_RUNS = 3
_UNEVEN = 1.25
"""Factor on what was measured: allocators do not give back all that is freed."""


_KNOWN: weakref.WeakKeyDictionary[Network, float] = weakref.WeakKeyDictionary()


def bytes_per_pixel(network: Network) -> float:
    """Return the memory of PyTorch's own tensors while a model runs, for each input pixel, in bytes.

    Measured once on a small square, with the model folded: the most bytes of tensors alive at once, its
    input and output counted, and half as much again. Weights are not counted. Engines other than PyTorch
    take up to thrice that.

    Args:
        network: the model, in evaluation mode.
    """
    if network not in _KNOWN:
        run = network.folded()
        low = torch.zeros(1, network.contract.channels, _SIDE, _SIDE)
        with torch.inference_mode(False), torch.no_grad(), _Alive() as alive:
            run(low)
        _KNOWN[network] = _UNSEEN * (alive.most + low.nbytes) / (_SIDE * _SIDE)
    return _KNOWN[network]


def measured_bytes_per_pixel(run: Callable[[Tensor], Tensor], channels: int) -> float | None:
    """Return the memory that the process comes to hold while something runs on its CPU, likewise.

    It is run a few times on a square of 128 pixels, on whatever engine that is; the largest that the
    process then held beyond what it held before counts, and a quarter as much again.

    Returns:
        Bytes, or None where this system does not tell.
    """
    low = torch.zeros(1, channels, _PROBED, _PROBED)
    with memory_taken("cpu") as taken:
        for _ in range(_RUNS):
            run(low)
    return None if taken.bytes is None else _UNEVEN * taken.bytes / (_PROBED * _PROBED)


class _Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, as long as these live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self._watch(value.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage.data_ptr()
        size = storage.nbytes()
        if key in self._known or size == 0:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
