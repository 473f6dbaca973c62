"""How much memory a model takes for each pixel of its input."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_SIDE = 64

_UNSEEN = 1.5
"""Factor for what libraries behind PyTorch take beside its own tensors (packed copies, scratch)."""


def bytes_per_pixel(module: nn.Module, channels: int) -> float:
    """Return the memory that a model takes while it runs on the CPU, for each input pixel, in bytes.

    Measured on a small square: the most bytes of tensors alive at once, its input and output counted,
    and half as much again. Weights are not counted.

    Args:
        module: maps `1 C h w` to a picture.
        channels: C.
    """
    low = torch.zeros(1, channels, _SIDE, _SIDE)
    with torch.inference_mode(False), torch.no_grad(), _Alive() as alive:
        module(low)
    return _UNSEEN * (alive.most + low.nbytes) / (_SIDE * _SIDE)


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
