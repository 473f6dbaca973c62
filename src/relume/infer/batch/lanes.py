"""Run one job through its stages while others run through theirs, within a budget of memory."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from relume.infer.batch.outputs import seal
from relume.infer.batch.records import Seal
from relume.infer.batch.stages import Advance, Job, Load, Outcome, Stages, Stopped

Decoded = TypeVar("Decoded")
Computed = TypeVar("Computed")


@dataclass(frozen=True, kw_only=True)
class Widths:
    """How many pictures are decoded and encoded at once; one is computed."""

    decode: int = 1
    encode: int = 1

    @classmethod
    def here(cls, cores: int | None = None) -> Widths:
        """Return what fits a number of cores; default: this machine's."""
        cores = cores or os.cpu_count() or 1
        return cls(decode=2 if cores > 2 else 1, encode=max(1, min(4, cores // 2)))

    @property
    def jobs(self) -> int:
        """How many jobs keep all lanes busy."""
        return self.decode + 1 + self.encode


@dataclass(eq=False)
class Claim:
    """What one job holds, or is going to."""

    load: Load


class Memory:
    """A budget of bytes that jobs take from, in the order in which they ask.

    A picture is decoded only when the budget also has room for what it, or another that waits
    decoded, becomes when computed; so the next computation can always begin once what was computed before is
    written. What alone is larger than the budget passes when nothing else is held, so that no picture
    is too large to be tried. The most that is held is the budget, or one picture.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held = 0
        self._computed = 0
        self._waiting: set[Claim] = set()
        self._turns: deque[Claim] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def decoded(self, load: Load, stop: threading.Event) -> Iterator[Claim]:
        """Hold what a decoded picture takes.

        Raises:
            Stopped: the batch is stopped while waiting.
        """
        claim = Claim(load)
        with self._changed:
            self._turns.append(claim)
            try:
                while self._turns[0] is not claim or not self._has_room(load):
                    self._wait(stop)
                self._held += load.decoded
                self._waiting.add(claim)
            finally:
                self._turns.remove(claim)
                self._changed.notify_all()
        try:
            yield claim
        finally:
            with self._changed:
                self._held -= load.decoded
                self._waiting.discard(claim)
                self._changed.notify_all()

    @contextlib.contextmanager
    def computed(self, claim: Claim, stop: threading.Event) -> Iterator[None]:
        """Hold what a computed picture takes, beside its decoded one; one thread at a time may ask.

        Raises:
            Stopped: the batch is stopped while waiting.
        """
        with self._changed:
            size = claim.load.computed
            while self._held + size > self._budget and self._computed:
                self._wait(stop)
            self._held += size
            self._computed += size
            self._waiting.discard(claim)
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._computed -= size
                self._changed.notify_all()

    def _has_room(self, load: Load) -> bool:
        largest = max([load.computed, *(claim.load.computed for claim in self._waiting)])
        return not self._held or self._held + load.decoded + largest <= self._budget

    def _wait(self, stop: threading.Event) -> None:
        self._changed.wait(0.2)
        if stop.is_set():
            raise Stopped


class Lanes(Generic[Decoded, Computed]):
    """The stages with the threads that they run in; `perform` is called by one thread for each job.

    Args:
        stages: the work.
        widths: how many jobs may be in a stage at once.
        memory: bytes that the pictures under way may hold.
        stop: set when the batch is to stop.
    """

    def __init__(
        self, stages: Stages[Decoded, Computed], *, widths: Widths, memory: int, stop: threading.Event
    ) -> None:
        self._stages = stages
        self._memory = Memory(memory)
        self._stop = stop
        # Threads of their own: a library keeps a team of helpers for each thread that calls it.
        self._decoding = ThreadPoolExecutor(widths.decode, "decode")
        self._computing = ThreadPoolExecutor(1, "compute")
        self._encoding = ThreadPoolExecutor(widths.encode, "encode")

    def close(self) -> None:
        """Let the threads end once they have nothing to do."""
        for pool in (self._decoding, self._computing, self._encoding):
            pool.shutdown(wait=False)

    def perform(self, job: Job, hidden: Path, advance: Advance) -> tuple[Outcome, Seal]:
        """Do a job up to its whole output at `hidden`.

        Raises:
            Stopped: the batch is being stopped and the picture was not computed yet.
            RelumeError: what a stage raises.
        """
        began = time.perf_counter()
        self._go_on()
        load = self._decoding.submit(self._stages.weigh, job).result()
        with contextlib.ExitStack() as held:
            with contextlib.ExitStack() as held_decoded:
                claim = held_decoded.enter_context(self._memory.decoded(load, self._stop))
                decoding = self._decoding.submit(self._decode, job)
                computing = self._computing.submit(self._compute, decoding.result(), claim, held, advance)
                del decoding  # it keeps the picture that it gave
                computed = computing.result()
                del computing
            outcome, sealed = self._encoding.submit(self._encode, job, computed, hidden).result()
        return replace(outcome, seconds=time.perf_counter() - began), sealed

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _decode(self, job: Job) -> Decoded:
        self._go_on()
        return self._stages.decode(job)

    def _compute(
        self, decoded: Decoded, claim: Claim, held: contextlib.ExitStack, advance: Advance
    ) -> Computed:
        self._go_on()
        held.enter_context(self._memory.computed(claim, self._stop))

        def advance_or_stop(share: float) -> None:
            self._go_on()
            advance(share)

        return self._stages.compute(decoded, advance_or_stop)

    def _encode(self, job: Job, computed: Computed, hidden: Path) -> tuple[Outcome, Seal]:
        # What is computed is encoded even when the batch stops: the dear part of the work is done.
        outcome = self._stages.encode(job, computed, hidden)
        return outcome, seal(hidden)
