"""What `relume upscale` does to each picture, as stages that a batch runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from relume.apps.upscale_settings import UpscaleSettings
from relume.core.errors import RelumeError
from relume.core.machine import free_memory, peak_memory, resident_memory
from relume.core.pictures import (
    StoredPicture,
    canvas_bytes,
    check_size,
    depth_for,
    format_of,
    memory_to_write,
    open_stored,
    read_size,
    write,
)
from relume.infer.batch.stages import Job, Load, Outcome
from relume.infer.consistency import EXACT
from relume.infer.engines.base import Place
from relume.infer.restorer import Restorer, Result
from relume.infer.tiling import ran_out_of_memory
from relume.infer.wishes import FREE_SHARE, Wishes

if TYPE_CHECKING:
    from relume.infer.batch.stages import Advance

_SOURCE_PART = 8
_OUTPUT_PART = 4
"""Parts of the memory for pictures that a decoded input and an output may take; larger ones lie on disk."""

_KEPT_BACK = 128 << 20
"""What is not for pictures of a memory promise: encoders, libraries, a tile under way."""

_MOST_BANDS = 4


def shared_memory(asked: int | None) -> tuple[int, int]:
    """Return how many bytes the process may come to hold, and how many of them are left for pictures.

    Args:
        asked: the first of these; None takes a share of what is free.

    Raises:
        RelumeError: none are left.
    """
    held = resident_memory() or 0
    free = free_memory()
    # Where the system does not tell, what any machine of today has.
    memory = asked or held + int(FREE_SHARE * (free if free is not None else 2 << 30))
    left = memory - held - _KEPT_BACK
    if left <= 0 and asked is None:
        raise RelumeError(f"only {_mebibytes(free or 0)} of memory are free; close other programs")
    if left <= 0:
        raise RelumeError(
            f"--memory {_mebibytes(memory)} does not suffice: the program itself holds {_mebibytes(held)}, "
            f"and {_mebibytes(_KEPT_BACK)} are kept for encoding; allow more"
        )
    return memory, left


def load_restorer(settings: UpscaleSettings, *, say: Callable[[str], None] | None = None) -> Restorer:
    """Load the model of the settings, on the engine that they name."""
    from relume.apps.face import DEFAULT_SYSTEM, load

    if settings.threads is not None:
        Place(threads=settings.threads)  # tells what makes no sense
        torch.set_num_threads(settings.threads)
    return load(
        settings.model or DEFAULT_SYSTEM, scale=settings.scale, engine=settings.engine,
        device=settings.device, precision=settings.precision, threads=settings.threads,
        effort=settings.effort, strength=settings.strength, say=say,
    )  # fmt: skip


@dataclass(frozen=True)
class Decoded:
    """An input on its way.

    Attributes:
        job: whose it is.
        picture: its levels.
        seconds: spent on it so far.
    """

    job: Job
    picture: StoredPicture
    seconds: float


@dataclass(frozen=True)
class Computed:
    """An output on its way.

    Attributes:
        result: the enlarged picture and what is known of it.
        size_in: of the input, "640x480".
        notes: on the input, and on how it was enlarged.
        seconds: spent on it so far.
    """

    result: Result
    size_in: str
    notes: tuple[str, ...]
    seconds: float


class Upscaler:
    """The three stages of enlarging pictures, for `infer.batch`; the model is loaded at once.

    Args:
        settings: what is wished.
        say: told what takes long or had to be done otherwise; None has it in the notes on the picture that
            is under way.

    Attributes:
        memory: the bytes that the process may come to hold.
        budget: the bytes of them that the pictures under way may hold.

    Raises:
        RelumeError: the model cannot be loaded, the size asked for makes no sense, or the memory does not
            suffice for any picture.
    """

    def __init__(self, settings: UpscaleSettings, *, say: Callable[[str], None] | None = None) -> None:
        self.settings = settings
        self._target = settings.target()
        self._said: list[str] = []
        self.restorer = load_restorer(settings, say=say or self._said.append)
        self.memory, self._for_pictures = shared_memory(settings.memory)
        # The rest is for tiles under way.
        self.budget = self._for_pictures // 2

    def weigh(self, job: Job) -> Load:
        """Return the memory that the picture takes as levels, by its header."""
        with _about(job):
            height, width = read_size(job.source, cubes=True)
            rows, columns = self.restorer.size(height, width, self._target)
            # What the header does not tell of bands and depth is taken at its most.
            contract = self.restorer.contract
            bands, deep = (contract.channels, 32) if contract.of_cubes else (_MOST_BANDS, 16)
            encoding = _beside(memory_to_write(job.target, rows, columns, bands, deep))
        decoded = min(canvas_bytes(height, width, bands, deep), self._for_pictures // _SOURCE_PART)
        computed = min(canvas_bytes(rows, columns, bands, deep), self._for_pictures // _OUTPUT_PART)
        return Load(decoded=decoded, computed=computed + encoding)

    def decode(self, job: Job) -> Decoded:
        """Read the input; large ones to disk, into the job's scratch folder."""
        started = time.perf_counter()
        with _about(job):
            format_of(job.target)
            picture = open_stored(
                job.source, max_megapixels=self.settings.max_megapixels, folder=job.scratch,
                memory=self._for_pictures // _SOURCE_PART, cubes=True,
            )  # fmt: skip
            try:
                # The orientation is applied now, so the size is the true one.
                size = self.restorer.size(picture.height, picture.width, self._target)
                check_size(job.target, *size)
                self._refuse_too_dear(job, *size, picture)
            except RelumeError:
                picture.close()
                raise
        return Decoded(job, picture, time.perf_counter() - started)

    def _refuse_too_dear(self, job: Job, height: int, width: int, picture: StoredPicture) -> None:
        """Refuse what the encoder would need more memory for than there is; it cannot be stopped later.

        Raises:
            RelumeError: it would.
        """
        bands = picture.channels + picture.transparent
        bits = depth_for(job.target, picture.bits)
        needed = _beside(memory_to_write(job.target, height, width, bands, bits))
        if needed > self._for_pictures:
            other = "" if picture.cube else "choose png, tiff or jpeg (--format), or "
            raise RelumeError(
                f"{job.target}: to encode {width}x{height} takes {_mebibytes(needed)} of memory, of which "
                f"{_mebibytes(self._for_pictures)} are there; {other}allow more (--memory)"
            )

    def compute(self, decoded: Decoded, advance: Advance) -> Computed:
        """Enlarge."""
        started = time.perf_counter()
        job, picture = decoded.job, decoded.picture
        wishes = Wishes(
            target=self._target, tile=self.settings.tile, ensemble=self.settings.ensemble,
            faithful=self.settings.faithful, memory=self.memory,
            strict=self.settings.memory is not None,
            at_work=self._for_pictures - self.budget, folder=job.scratch,
        )  # fmt: skip
        with picture, _about(job):
            result = self.restorer.restore(
                picture, wishes, bits=depth_for(job.target, picture.bits), advance=advance
            )
        said, self._said[:] = tuple(self._said), []
        seconds = decoded.seconds + time.perf_counter() - started
        return Computed(result, picture.size, (*picture.notes, *said), seconds)

    def encode(self, job: Job, computed: Computed, hidden: Path) -> Outcome:
        """Write the output to a hidden file, to which the batch gives its name."""
        started = time.perf_counter()
        result = computed.result
        assert isinstance(result.picture, StoredPicture)
        with result.picture as picture, _about(job):
            lost = write(picture, hidden, overwrite=True, quality=self.settings.quality)
            if self.settings.quality is not None and format_of(job.target) in ("png", "tiff", "mat", "npy"):
                lost = (*lost, "PNG, TIFF and cubes lose nothing, so the quality asked for had no effect.")
            size, pixels = picture.size, picture.height * picture.width
        return Outcome(
            pixels=pixels,
            notes=(*computed.notes, *result.notes, *lost),
            facts={
                "from": computed.size_in,
                "to": size,
                "models": list(result.models),
                "engine": str(self.restorer.engine),
                "consistency": round(min(result.consistency, EXACT), 2),
                "work_seconds": round(computed.seconds + time.perf_counter() - started, 3),
                "peak": peak_memory(),
            },
        )


@contextlib.contextmanager
def _about(job: Job) -> Iterator[None]:
    """Have what goes wrong with a picture name it, and memory that does not suffice be told in a line."""
    try:
        yield
    except RelumeError as error:
        line = str(error)
        if job.scratch is not None:
            # The user knows the output by its own name, and nothing of the hidden folder.
            line = line.replace(str(job.scratch / job.target.name), str(job.target))
            line = line.replace(str(job.scratch), str(job.target.parent))
        named = any(str(path) in line for path in (job.source, job.target))
        raise RelumeError(line if named else f"{job.source}: {line}") from error
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        raise RelumeError(
            f"{job.source}: memory does not suffice to enlarge it; choose a smaller --tile or size, or cut it"
        ) from error


def _beside(encoding: int) -> int:
    """Return what encoding takes beyond what is kept back for it."""
    return max(0, encoding - _KEPT_BACK)


def _mebibytes(count: int) -> str:
    return f"{count >> 20} MiB"
