"""Run a batch on this machine: decoding, computing and encoding overlapped, one failure never the end."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from relume.core.errors import RelumeError, unexpected
from relume.infer.batch.database import ManifestError
from relume.infer.batch.lanes import Lanes, Widths
from relume.infer.batch.manifest import Manifest
from relume.infer.batch.outputs import Outputs
from relume.infer.batch.stages import Job, Listener, Outcome, Skip, Stages, Stopped, Tally

Ended = tuple[Job, Outcome]


def run(
    manifest: Manifest,
    stages: Stages[Any, Any],
    *,
    listener: Listener,
    jobs: Iterable[Job] | None = None,
    memory: int,
    widths: Widths | None = None,
    stop: threading.Event | None = None,
) -> Tally:
    """Do jobs until none is left, or until Ctrl-C (SIGINT) or `stop`.

    When stopped, pictures that are computed are still written, the others are left for the next run;
    a second Ctrl-C leaves at once. Nothing is ever partial under an output's name.

    Args:
        manifest: where the jobs were planned and their ends are written down.
        stages: the work.
        listener: told how it goes on.
        jobs: what to do; may wait for more to come, as `watch.arrivals` does. Default: what is left.
        memory: bytes that the pictures under way may hold; one picture may hold more.
        widths: how many pictures are decoded and encoded at once; default as the machine has cores.
        stop: set from outside to stop.

    Raises:
        ManifestError: the manifest cannot be kept any longer.
    """
    stop = stop or threading.Event()
    batch = _Batch(
        manifest, stages, listener, iter(manifest.left() if jobs is None else jobs),
        memory=memory, widths=widths or Widths.here(), stop=stop,
    )  # fmt: skip
    with stopping(stop):
        return batch.run()


@contextlib.contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Have Ctrl-C and a polite kill set `stop`, and raise KeyboardInterrupt only when it is set already.

    So it never breaks into the middle of what is being written down or told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    heard = {number: old for number, old in before.items() if old not in (None, signal.SIG_IGN)}
    for number in heard:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in heard.items():
            signal.signal(number, old)


class Count:
    """Counts what ends into a tally."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._ends = {"done": 0, "failed": 0, "skipped": 0}
        self._pixels = 0

    def add(self, outcome: Outcome) -> None:
        """Count one end."""
        self._ends[outcome.status] += 1
        if outcome.status == "done":
            self._pixels += outcome.pixels

    def tally(self, *, stopped: bool) -> Tally:
        """Return what has been counted."""
        seconds = time.perf_counter() - self._began
        return Tally(**self._ends, pixels=self._pixels, seconds=seconds, stopped=stopped)


class _Batch:
    """One run: a thread for each job under way, each of which passes through the lanes."""

    def __init__(
        self, manifest: Manifest, stages: Stages[Any, Any], listener: Listener, jobs: Iterator[Job], *,
        memory: int, widths: Widths, stop: threading.Event,
    ) -> None:  # fmt: skip
        self._manifest = manifest
        self._listener = listener
        self._jobs = jobs
        self._taking = threading.Lock()
        self._stop = stop
        self._outputs = Outputs(manifest)
        self._lanes: Lanes[Any, Any] = Lanes(stages, widths=widths, memory=memory, stop=stop)
        # None: a worker has ended. An exception: the batch cannot go on.
        self._ends: queue.SimpleQueue[Ended | Exception | None] = queue.SimpleQueue()
        self._workers = widths.jobs

    def run(self) -> Tally:
        """Work until all workers have ended."""
        count = Count()
        threads = [
            threading.Thread(target=self._work, name=f"job-{number}", daemon=True)
            for number in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            stopped = self._listen(count)
        except Exception:
            # The manifest must not be closed while they still write to it.
            self._stop.set()
            for thread in threads:
                thread.join()
            raise
        finally:
            self._stop.set()
            self._lanes.close()
        self._outputs.tidy()
        return count.tally(stopped=stopped)

    def _listen(self, count: Count) -> bool:
        """Pass on what the workers tell; gives whether the batch was stopped before its end."""
        working = self._workers
        problem: Exception | None = None
        while working:
            try:
                told = self._ends.get(timeout=0.5)  # for Windows, where a wait cannot be interrupted
            except queue.Empty:
                continue
            if told is None:
                working -= 1
            elif isinstance(told, Exception):
                problem = problem or told
                self._stop.set()
            else:
                count.add(told[1])
                self._listener.ended(*told)
        if problem is not None:
            raise problem
        return self._stop.is_set()

    def _work(self) -> None:
        try:
            while (job := self._next()) is not None:
                self._one(job)
        except Exception as error:  # noqa: BLE001 - handed to the thread that runs the batch
            self._ends.put(error)
        finally:
            self._ends.put(None)

    def _next(self) -> Job | None:
        with self._taking:
            return None if self._stop.is_set() else next(self._jobs, None)

    def _one(self, job: Job) -> None:
        began = time.perf_counter()
        hidden: Path | None = None
        try:
            job, hidden = self._outputs.prepare(job)
            self._listener.begun(job)
            outcome, sealed = self._lanes.perform(
                job, hidden, lambda share: self._listener.advanced(job, share)
            )
            self._outputs.commit(job, hidden, sealed, outcome)
        except ManifestError:
            raise
        except Stopped:
            self._outputs.drop(job)
            self._manifest.put_back(job)
            return
        except Exception as error:  # noqa: BLE001 - one picture never stops the rest
            outcome = ending(error, job, hidden, seconds=time.perf_counter() - began)
            if hidden is not None:
                self._outputs.drop(job)
            self._manifest.ended(job, outcome)
        self._ends.put((job, outcome))


def ending(error: Exception, job: Job, hidden: Path | None, *, seconds: float) -> Outcome:
    """Return how a job ends by an exception.

    Args:
        error: what was raised.
        job: what was being done.
        hidden: where the output was being written, which the user is not to read of.
        seconds: since it was taken up.
    """
    trace = ""
    if isinstance(error, RelumeError):
        line = str(error)
    else:
        line = f"{job.source}: {unexpected(error)}"
        trace = "".join(traceback.format_exception(error))
    if hidden is not None:
        line = line.replace(str(hidden), str(job.target))
    return Outcome(
        status="skipped" if isinstance(error, Skip) else "failed",
        reason=line, seconds=seconds, trace=trace,
    )  # fmt: skip
