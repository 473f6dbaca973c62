"""Pairs of (damaged input, clean target), degraded on the fly, and batches of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from relume.core.errors import ConfigError, DataError, RelumeError
from relume.core.machine import most_threads
from relume.data.degradations.base import Degradation, Located, Telling, located
from relume.data.patches import Patches, PatchesConfig, PhotoList, StepSampler
from relume.data.preparation.reading import PieceList, PiecePatches
from relume.nn.colour import rgb_to_y

_FEW = 8
"""Workers that any machine may start: recipes for GPUs ask for as many, and are rehearsed on small ones."""

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
        high, place = self.patches.located(index)
        degradation = located(self.degradation, place)
        (seed,) = np.random.SeedSequence([self.patches.seed, index]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed))
        clean, told = _ready(high[None]), {}
        if isinstance(degradation, Telling):
            (low,), (told["kind"],) = degradation.tell(clean, generator=generator)
        else:
            (low,) = degradation(clean, generator=generator)
        margin = degradation.margin
        if high.dtype == torch.uint8:
            # Pictures have 8 bits where the network will be used.
            low = low.clamp(0, 1).mul(255).round_().to(torch.uint8)
        if self.luma:
            low, high = _luma(low), _luma(high)
        return {"input": _inside(low, margin), "target": _inside(high, margin * self.scale), **told}


@dataclass(frozen=True)
class _Failed:
    """What a worker could not make, and why."""

    message: str


class _Sent(Dataset["Batch | _Failed"]):
    """Pairs made in a worker; PyTorch would wrap an error into one of its own, traceback and all."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __getitem__(self, index: int) -> Batch | _Failed:
        try:
            return self._pairs[index]
        except RelumeError as error:
            return _Failed(str(error))


def _collated(items: list[Batch | _Failed]) -> Batch | _Failed:
    failed = next((item for item in items if isinstance(item, _Failed)), None)
    return failed or default_collate(items)


_LOST = "DataLoader worker"
"""How PyTorch's errors begin that tell of a worker which was ended from outside."""


def _heard(batches: Iterator[Batch | _Failed]) -> Iterator[Batch | _Failed]:
    """Yield what workers send; one that ends while it sends is told like any other."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (OSError, EOFError) as error:
            if str(error).startswith("Caught "):  # in the worker, by its own code
                raise
            raise RuntimeError(f"{_LOST} is gone: {error}") from error
        yield batch


@contextmanager
def workers_watched(reached: Callable[[], str] = str) -> Iterator[None]:
    """Tell in one line when a loader's worker is ended from outside.

    PyTorch raises that in the main thread, whatever it is at, so it is caught around all use of batches.

    Args:
        reached: tells how far the work is, as " after step 7".

    Raises:
        RelumeError: a worker was ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(_LOST):
            raise
        raise RelumeError(
            f"a process that loads data was ended from outside{reached()}, perhaps for lack of memory "
            f"({error}); the same command goes on from the last saved state, and fewer data.workers or less "
            "data.memory_gib take less memory"
        ) from None


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
        cubes: whether the channels are the bands of cubes (`Contract.of_cubes`).

    Raises:
        ConfigError: this machine is too small for so many workers.
        PictureError: a file is no picture.
        DataError: a photo is too small for a patch, or lacks what the degradation needs of it.
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
        cubes: bool = False,
    ) -> None:
        most = max(_FEW, most_threads())
        if config.workers > most:
            raise ConfigError(
                f"data.workers: {config.workers} are too many for this machine; choose 1 … {most}, or 0 to "
                f"load in the process that trains"
            )
        self._config = config
        choices: dict[str, Any] = {
            "scale": scale, "margin": degradation.margin, "channels": 3 if luma else channels, "seed": seed,
            "cubes": cubes,
        }  # fmt: skip
        patches = (
            PiecePatches(photos, config, **choices)
            if isinstance(photos, PieceList)
            else Patches(photos, config, **choices)
        )
        if isinstance(degradation, Located):
            degradation.check(patches.sizes)
        self._pairs = Pairs(patches, degradation, scale=scale, luma=luma)

    def by_itself(self) -> PairLoader:
        """Return the same without workers: a few batches are there before these have started."""
        alone = copy.copy(self)
        alone._config = self._config.model_copy(update={"workers": 0})
        return alone

    def some(self, count: int) -> Batch:
        """Return the first pairs as one batch, made here and now."""
        pairs = [self._pairs[index] for index in range(count)]
        return {
            name: _ready(torch.stack([torch.as_tensor(pair[name]) for pair in pairs])) for name in pairs[0]
        }

    def batches(
        self, first: int, last: int, *, rank: int = 0, world: int = 1, device: torch.device = _CPU
    ) -> Generator[Batch, None, None]:
        """Yield the batches of steps `first` … `last - 1`, the share of process `rank` of `world`.

        Raises:
            DataError: a batch that cannot be shared evenly, or a photo that cannot be read.
            RuntimeError: a worker was ended from outside, see `workers_watched`.
        """
        workers = self._config.workers
        loader: DataLoader[Batch | _Failed] = DataLoader(
            _Sent(self._pairs) if workers else self._pairs,
            collate_fn=_collated,
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
        batches = iter(loader)
        try:
            for batch in _heard(batches) if workers else batches:
                if isinstance(batch, _Failed):
                    raise DataError(batch.message)
                yield {name: _ready(values.to(device, non_blocking=True)) for name, values in batch.items()}
        finally:
            if workers:
                # As long as PyTorch knows of a dead worker, it tells of it whenever any process ends.
                batches._shutdown_workers()  # type: ignore[attr-defined]  # of a loader with workers


def _ready(values: Tensor) -> Tensor:
    """Return levels, uint8, as float32 0..1; other numbers as they are."""
    return values.float().div_(255) if values.dtype == torch.uint8 else values


def _luma(levels: Tensor) -> Tensor:
    """Return the luma of `3 H W` in uint8, rounded."""
    return rgb_to_y(levels.float(), peak=255).round_().to(torch.uint8)


def _inside(levels: Tensor, margin: int) -> Tensor:
    height, width = levels.shape[-2:]
    return levels[..., margin : height - margin, margin : width - margin].contiguous()
