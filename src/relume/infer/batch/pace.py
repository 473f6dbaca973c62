"""How far a batch has come and how long it will still take, by the pixels of its pictures."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from relume.infer.batch.stages import Job, Outcome

# Pixels for each byte of a file until pictures of its ending have been seen; only their ratios count.
_GUESSES = {".png": 0.7, ".tif": 0.3, ".tiff": 0.3, ".webp": 4.0, ".avif": 8.0}
_GUESS = 3.0


@dataclass
class _Kind:
    """What is known of the pictures of one ending: those left, and those done."""

    bytes_left: float = 0.0
    bytes_done: float = 0.0
    pixels_done: float = 0.0

    def density(self, guess: float, correction: float) -> float:
        """Return pixels for each byte."""
        return self.pixels_done / self.bytes_done if self.bytes_done else guess * correction


class Pace:
    """Work done and work left; any thread may tell it.

    No picture is opened to know its size beforehand, which would take hours for a million of them. The
    bytes of the files are known; how many pixels a byte stands for is learnt, for each ending, from the
    pictures done.

    Args:
        left: by ending, how many pictures are to be done and the bytes of their files.
    """

    def __init__(self, left: Mapping[str, tuple[int, int]]) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._kinds = {
            ending: _Kind(bytes_left=float(size + count)) for ending, (count, size) in left.items()
        }
        self._shares: dict[int, tuple[Job, float]] = {}
        self._done = 0.0

    def advanced(self, job: Job, share: float) -> None:
        """Hear how much of a job is done, 0..1."""
        with self._lock:
            self._shares[job.id] = (job, share)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Hear that a job has ended; what failed is work that is not to be done any more."""
        with self._lock:
            self._shares.pop(job.id, None)
            kind = self._kinds.setdefault(_ending(job), _Kind())
            size = _size(job)
            kind.bytes_left = max(0.0, kind.bytes_left - size)
            if outcome.status == "done":
                kind.bytes_done += size
                kind.pixels_done += outcome.pixels
                self._done += outcome.pixels

    def share(self) -> float:
        """Return how much of the whole is done, 0..1."""
        with self._lock:
            done, left = self._work()
        return done / (done + left) if done + left else 1.0

    def seconds_left(self) -> float | None:
        """Return how long the rest will take at the pace so far, None before anything is known."""
        with self._lock:
            done, left = self._work()
            elapsed = time.monotonic() - self._began
        return elapsed * left / done if done else None

    def _work(self) -> tuple[float, float]:
        """Return the pixels done, with what is done of those under way, and the pixels left."""
        correction = self._correction()
        left = sum(
            kind.bytes_left * kind.density(_GUESSES.get(ending, _GUESS), correction)
            for ending, kind in self._kinds.items()
        )
        under_way = 0.0
        for job, share in self._shares.values():
            kind = self._kinds.setdefault(_ending(job), _Kind())
            under_way += share * _size(job) * kind.density(_GUESSES.get(_ending(job), _GUESS), correction)
        under_way = min(under_way, left)
        return self._done + under_way, left - under_way

    def _correction(self) -> float:
        """Return by how much the guesses are off (they know no scale), from the endings that were seen."""
        expected = sum(kind.bytes_done * _GUESSES.get(ending, _GUESS) for ending, kind in self._kinds.items())
        return sum(kind.pixels_done for kind in self._kinds.values()) / expected if expected else 1.0


def _ending(job: Job) -> str:
    return os.path.splitext(job.source.name)[1].lower()  # noqa: PTH122


def _size(job: Job) -> float:
    """Return the bytes of a job's input; one more, so that empty files count too."""
    return float((job.size or 0) + 1)
