"""Pairs of (damaged input, clean target), degraded on the fly, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from relume.data.degradations.base import Degradation, Telling
from relume.data.patches import Patches, PatchesConfig, PhotoList, StepSampler
from relume.data.preparation.reading import PieceList, PiecePatches
from relume.nn.colour import rgb_to_y

_CPU = torch.device("cpu")
Batch = dict[str, Tensor]
"""What an objective gets: "input" `B C H W` and "target" `B C sH sW`, both float32 0..1; and, where the
degradation tells it, "kind", `B` of int64: which of its kinds happened to each input."""


class Pairs(Dataset[Batch]):
    """Pairs of "input" `C×p×p` and "target" `C×sp×sp` as uint8, each a pure function of (seed, index).

    Those of cubes are floats, of which nothing is rounded. Where the degradation tells, each comes with its
    "kind", int64.

    A pair's degradation draws from a generator of its own, so it is the same in whatever batch, process or
    loader worker it is made.

    Args:
        patches: the clean patches, with the degradation's margin.
        degradation: makes the input from the target.
        scale: s, high-resolution pixels for each low-resolution one.
        luma: whether pairs are the luma of RGB patches, taken after degrading: what happens to pictures
            happens to their colours.
    """

    def __init__(
        self, patches: Patches | PiecePatches, degradation: Degradation, *, scale: int, luma: bool = False
    ) -> None:
        self.patches = patches
        self.degradation = degradation
        self.scale = scale
        self.luma = luma

    def __getitem__(self, index: int) -> Batch:
        high = self.patches[index]
        (seed,) = np.random.SeedSequence([self.patches.seed, index]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed))
        clean, told = _ready(high[None]), {}
        if isinstance(self.degradation, Telling):
            (low,), (told["kind"],) = self.degradation.tell(clean, generator=generator)
        else:
            (low,) = self.degradation(clean, generator=generator)
        margin = self.degradation.margin
        if high.dtype == torch.uint8:
            # Pictures have 8 bits where the network will be used.
            low = low.clamp(0, 1).mul(255).round_().to(torch.uint8)
        if self.luma:
            low, high = _luma(low), _luma(high)
        return {"input": _inside(low, margin), "target": _inside(high, margin * self.scale), **told}


class PairLoader:
    """Gives the batches of any range of steps; the batch of a step depends on seed and step alone.

    Args:
        photos: where the clean patches come from; photos, or the pieces of `relume prepare`.
        config: patch and batch size, workers, memory.
        degradation: makes the input from the target.
        scale: high-resolution pixels for each low-resolution one.
        channels: channels of input and target.
        seed: of patches and degradation.
        luma: whether the one channel is luma of colour pictures (`Contract.luma`).

    Raises:
        PictureError: a file is no picture.
        DataError: a photo is too small for a patch.
    """

    def __init__(
        self,
        photos: PhotoList | PieceList,
        config: PatchesConfig,
        degradation: Degradation,
        *,
        scale: int,
        channels: int,
        seed: int,
        luma: bool = False,
    ) -> None:
        self._config = config
        channels = 3 if luma else channels
        choices = {"scale": scale, "margin": degradation.margin, "channels": channels, "seed": seed}
        patches = (
            PiecePatches(photos, config, **choices)
            if isinstance(photos, PieceList)
            else Patches(photos, config, **choices)
        )
        self._pairs = Pairs(patches, degradation, scale=scale, luma=luma)

    def some(self, count: int) -> Batch:
        """Return the first pairs as one batch, made here and now."""
        pairs = [self._pairs[index] for index in range(count)]
        return {
            name: _ready(torch.stack([torch.as_tensor(pair[name]) for pair in pairs])) for name in pairs[0]
        }

    def batches(
        self, first: int, last: int, *, rank: int = 0, world: int = 1, device: torch.device = _CPU
    ) -> Iterator[Batch]:
        """Yield the batches of steps `first` … `last - 1`, the share of process `rank` of `world`.

        Raises:
            DataError: a batch that cannot be shared evenly.
        """
        workers = self._config.workers
        loader = DataLoader(
            self._pairs,
            batch_sampler=StepSampler(first, last, self._config.batch, rank, world),
            num_workers=workers,
            # libvips has threads, and a forked process with threads may wait for ever.
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=self._config.ahead if workers else None,
            # Its own generator: a loader would else draw from the one that layers such as dropout use,
            # and a resumed run would go on with other numbers than a run left alone.
            generator=torch.Generator(),
            pin_memory=device.type == "cuda",
        )
        for batch in loader:
            yield {name: _ready(values.to(device, non_blocking=True)) for name, values in batch.items()}


def _ready(values: Tensor) -> Tensor:
    """Return levels, uint8, as float32 0..1; other numbers as they are."""
    return values.float().div_(255) if values.dtype == torch.uint8 else values


def _luma(levels: Tensor) -> Tensor:
    """Return the luma of `3 H W` in uint8, rounded."""
    return rgb_to_y(levels.float(), peak=255).round_().to(torch.uint8)


def _inside(levels: Tensor, margin: int) -> Tensor:
    height, width = levels.shape[-2:]
    return levels[..., margin : height - margin, margin : width - margin].contiguous()
