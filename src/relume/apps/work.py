"""What `relume upscale` does to each picture, as settings that travel and stages that a batch runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from relume.core.config import Config
from relume.core.errors import RelumeError
from relume.core.machine import free_memory
from relume.core.pictures import (
    StoredPicture,
    canvas_bytes,
    check_size,
    depth_for,
    format_of,
    open_stored,
    read_size,
    write,
)
from relume.infer.batch.stages import Job, Load, Outcome
from relume.infer.engines.base import Precision
from relume.infer.restorer import FREE_SHARE, Restorer, Result, Wishes
from relume.infer.targets import Target
from relume.infer.tiling import ran_out_of_memory

if TYPE_CHECKING:
    from relume.infer.batch.stages import Advance

_SOURCE_SHARE = 8
"""The part of the memory in which a decoded input may lie; larger ones lie on disk."""

_MOST_BANDS = 4


class UpscaleSettings(Config):
    """How pictures are enlarged; everything that decides what an output looks like, and how it is made.

    Attributes:
        model: system, variant or weights file; None takes the default system.
        scale: how many times longer the sides get; None takes the model's.
        width: of the output; the height follows unless it is given too.
        height: likewise.
        megapixels: of the output.
        fit: width and height of a box that the output fits.
        ensemble: whether eight flips and turns are averaged.
        faithful: whether the output is corrected until it agrees with the input.
        effort: 0..1, quality against time, for models that have such a choice.
        precision: of the arithmetic.
        quality: 1..100 for JPEG, WebP and AVIF.
        engine: name, or "auto" for the quickest; None takes the environment's (RELUME_ENGINE), else "auto".
        device: "cpu", "cuda" …; None takes what is there.
        threads: on the CPU; None takes all.
        tile: longest side of the tiles in input pixels, 0 for the whole picture; None by memory.
        memory: the most bytes that the process may come to hold; None takes a share of what is free.
        max_megapixels: larger inputs are refused.
    """

    model: str | None = None
    scale: float | None = None
    width: int | None = None
    height: int | None = None
    megapixels: float | None = None
    fit: tuple[int, int] | None = None
    ensemble: bool = False
    faithful: bool = False
    effort: float | None = None
    precision: Precision = "fp32"
    quality: int | None = Field(default=None, ge=1, le=100)
    engine: str | None = None
    device: str | None = None
    threads: int | None = Field(default=None, ge=1)
    tile: int | None = Field(default=None, ge=0)
    memory: int | None = Field(default=None, ge=1)
    max_megapixels: float = 500.0

    def target(self) -> Target | None:
        """Return the size asked for; None is the model's own scale.

        Raises:
            RelumeError: several sizes are asked for, or none that can be.
        """
        wishes = {name: getattr(self, name) for name in ("scale", "width", "height", "megapixels", "fit")}
        return Target(**wishes) if any(value is not None for value in wishes.values()) else None


def load_restorer(settings: UpscaleSettings, *, say: Callable[[str], None] | None = None) -> Restorer:
    """Load the model of the settings, on the engine that they name."""
    from relume.apps.face import DEFAULT_SYSTEM, load

    return load(
        settings.model or DEFAULT_SYSTEM, scale=settings.scale, engine=settings.engine,
        device=settings.device, precision=settings.precision, threads=settings.threads,
        effort=settings.effort, say=say,
    )  # fmt: skip


@dataclass(frozen=True)
class Decoded:
    """An input on its way.

    Attributes:
        job: whose it is.
        picture: its levels.
        started: when it was taken up, as `time.perf_counter` counts.
    """

    job: Job
    picture: StoredPicture
    started: float


@dataclass(frozen=True)
class Computed:
    """An output on its way.

    Attributes:
        result: the enlarged picture and what is known of it.
        size_in: of the input, "640x480".
        notes: on the input.
        started: when it was taken up.
    """

    result: Result
    size_in: str
    notes: tuple[str, ...]
    started: float


class Upscaler:
    """The three stages of enlarging pictures, for `infer.batch`.

    Args:
        settings: what is wished.
        restorer: the loaded model; None loads it when the first picture needs it.
        say: told what takes long or had to be done otherwise.

    Raises:
        RelumeError: the size asked for makes no sense.
    """

    def __init__(
        self, settings: UpscaleSettings, restorer: Restorer | None = None,
        *, say: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._target = settings.target()
        self._restorer = restorer
        self._say = say
        self._loading = threading.Lock()
        free = free_memory()
        self.memory = settings.memory or int(FREE_SHARE * (free if free is not None else 2 << 30))
        """The bytes that the process may come to hold."""

    @property
    def restorer(self) -> Restorer:
        """The loaded model."""
        with self._loading:
            if self._restorer is None:
                self._restorer = load_restorer(self.settings, say=self._say)
            return self._restorer

    def weigh(self, job: Job) -> Load:
        """Return the memory that the picture takes as levels, by its header."""
        height, width = read_size(job.source)
        rows, columns = self.restorer.size(height, width, self._target)
        deep = 16  # what the header does not tell of the depth is taken at its most
        decoded = min(canvas_bytes(height, width, _MOST_BANDS, deep), self.memory // _SOURCE_SHARE)
        computed = min(canvas_bytes(rows, columns, _MOST_BANDS, deep), self.memory // 4)
        return Load(decoded=decoded, computed=computed)

    def decode(self, job: Job) -> Decoded:
        """Read the input; large ones to disk, beside the output."""
        started = time.perf_counter()
        format_of(job.target)
        picture = open_stored(
            job.source, max_megapixels=self.settings.max_megapixels, folder=job.target.parent,
            memory=self.memory // _SOURCE_SHARE,
        )  # fmt: skip
        try:
            # The orientation is applied now, so the size is the true one.
            check_size(job.target, *self.restorer.size(picture.height, picture.width, self._target))
        except RelumeError:
            picture.close()
            raise
        return Decoded(job, picture, started)

    def compute(self, decoded: Decoded, advance: Advance) -> Computed:
        """Enlarge."""
        job, picture = decoded.job, decoded.picture
        wishes = Wishes(
            target=self._target, tile=self.settings.tile, ensemble=self.settings.ensemble,
            faithful=self.settings.faithful, memory=self.memory, folder=job.target.parent,
        )  # fmt: skip
        try:
            result = self.restorer.restore(
                picture, wishes, bits=depth_for(job.target, picture.bits), advance=advance
            )
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            raise RelumeError(
                f"{job.source}: memory does not suffice to enlarge {picture.size}; "
                "choose a smaller --tile or target, or cut the picture"
            ) from error
        finally:
            picture.close()
        return Computed(result, picture.size, picture.notes, decoded.started)

    def encode(self, job: Job, computed: Computed, hidden: Path) -> Outcome:
        """Write the output to a hidden file, to which the batch gives its name."""
        result = computed.result
        assert isinstance(result.picture, StoredPicture)
        with result.picture as picture:
            try:
                lost = write(picture, hidden, overwrite=True, quality=self.settings.quality)
            except RelumeError as error:
                # The user knows the output by its own name.
                raise RelumeError(str(error).replace(str(hidden), str(job.target))) from error
            size, pixels = picture.size, picture.height * picture.width
        return Outcome(
            seconds=time.perf_counter() - computed.started,
            pixels=pixels,
            notes=(*computed.notes, *result.notes, *lost),
            facts={
                "from": computed.size_in,
                "to": size,
                "models": list(result.models),
                "engine": str(self.restorer.engine),
                "consistency": round(min(result.consistency, 999.0), 2),
            },
        )
