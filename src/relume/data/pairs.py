"""Batches of (damaged input, clean target), degraded on the fly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from relume.data.patches import Patches, PatchesConfig, PhotoList, StepSampler

_CPU = torch.device("cpu")
Batch = dict[str, Tensor]
"""What an objective gets: "input" `B C H W` and "target" `B C sH sW`, both float32 0..1."""


class Degradation(Protocol):
    """What happened to a clean picture: a function of a uint8 batch and a seeded generator.

    Attributes:
        margin: low-resolution pixels at each border that come out wrong on a patch.
    """

    @property
    def margin(self) -> int: ...

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        """Map `B C sH sW` uint8 to `B C H W` uint8, on the same device; the generator is on the CPU."""
        ...


class PairLoader:
    """Gives the batches of any range of steps; the batch of a step depends on seed and step alone.

    Args:
        photos: where the clean patches come from.
        config: patch and batch size, workers, memory.
        degradation: makes the input from the target.
        scale: high-resolution pixels for each low-resolution one.
        channels: channels of input and target.
        seed: of patches and degradation.
    """

    def __init__(
        self,
        photos: PhotoList,
        config: PatchesConfig,
        degradation: Degradation,
        *,
        scale: int,
        channels: int,
        seed: int,
    ) -> None:
        self._config = config
        self._degradation = degradation
        self._scale = scale
        self._seed = seed
        self._patches = Patches(
            photos, config, scale=scale, margin=degradation.margin, channels=channels, seed=seed
        )

    def batches(
        self, first: int, last: int, *, rank: int = 0, world: int = 1, device: torch.device = _CPU
    ) -> Iterator[Batch]:
        """Yield the batches of steps `first` … `last - 1`, the share of process `rank` of `world`.

        Patches are degraded on `device` where that is a CUDA GPU: a CPU could not keep it busy.

        Raises:
            DataError: a batch that cannot be shared evenly, or a photo that is too small.
        """
        sampler = StepSampler(first, last, self._config.batch, rank, world)
        loader = DataLoader(
            self._patches,
            batch_sampler=sampler,
            num_workers=self._config.workers,
            # libvips has threads, and a forked process with threads may wait for ever.
            multiprocessing_context="spawn" if self._config.workers else None,
            # Its own generator: a loader would else draw from the one that layers such as dropout use,
            # and a resumed run would go on with other numbers than a run left alone.
            generator=torch.Generator(),
        )
        for step, high in enumerate(loader, start=first):
            # Degradations draw for a whole batch; mixing in the rank keeps the processes apart.
            generator = torch.Generator().manual_seed((self._seed * 1_000_003 + step) * 4099 + rank)
            # Other accelerators than CUDA may lack float64, which exact shrinking needs.
            if device.type == "cuda":
                high = high.to(device)
            low = self._degradation(high, generator=generator)
            margin = self._degradation.margin
            yield {
                "input": _inside(low, margin).to(device),
                "target": _inside(high, margin * self._scale).to(device),
            }


def _inside(levels: Tensor, margin: int) -> Tensor:
    height, width = levels.shape[-2:]
    return levels[..., margin : height - margin, margin : width - margin].float().div_(255)
