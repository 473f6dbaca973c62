"""Run a batch on a Ray cluster: each picture exactly once, whatever dies on the way.

The machine that runs the command keeps the manifest and gives outputs their names. Workers on the
nodes, one for each GPU, or for each node without one, hold the loaded model and write whole
outputs into hidden folders on a disk that all of them share. A worker that dies costs nothing but
time: its pictures are given to another one, under a new attempt with a hidden folder of its own,
so a worker that was only thought dead does no harm. Execution is at least once, effect once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from relume.core.errors import RelumeError
from relume.infer.batch.connection import connected
from relume.infer.batch.database import ManifestError
from relume.infer.batch.lanes import Widths
from relume.infer.batch.manifest import Manifest
from relume.infer.batch.outputs import Outputs
from relume.infer.batch.pipeline import Count, ending, stopping
from relume.infer.batch.records import Seal
from relume.infer.batch.stages import Job, Listener, Outcome, Stages, Tally
from relume.infer.batch.worker import Report, Worker, versions

_DEATHS = 4  # of workers that one picture may outlive
_FRESH = 3  # workers that may die on one node before they have done anything
_PATIENCE = 60.0  # seconds to wait for the first worker, or for one after the last has died
_LOOK = 2.0  # seconds between two looks at which nodes there are


def run(
    manifest: Manifest,
    factory: Callable[[], Stages[Any, Any]],
    *,
    address: str,
    listener: Listener,
    jobs: Iterable[Job] | None = None,
    memory: int,
    cpus: int | None = None,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] | None = None,
) -> Tally:
    """Do jobs on a cluster until none is left, or until Ctrl-C (SIGINT) or `stop`.

    Every node must see the inputs and the outputs' folders under the names that they have here; one
    that does not is left out.

    Args:
        manifest: where the jobs were planned and their ends are written down.
        factory: makes the stages on a worker; it travels there, so it must be picklable.
        address: of the cluster ("10.0.0.1:6379", "auto"), or `connection.LOCAL`.
        listener: told how it goes on; how far single pictures are is not known here.
        jobs: what to do, as for `pipeline.run`. Default: what is left.
        memory: bytes that the pictures under way may hold in each worker.
        cpus: cores for each worker on nodes without GPU; None makes one worker of each node.
        stop: set from outside to stop.
        tell: told, in one line each, which nodes cannot take part and why.

    Raises:
        MissingDependencyError: Ray is not installed.
        RelumeError: no such cluster, or no node of it can work.
        ManifestError: the manifest cannot be kept any longer.
    """
    stop = stop or threading.Event()
    with connected(address) as ray, stopping(stop):
        batch = _Batch(
            ray,
            manifest,
            factory,
            listener,
            memory,
            cpus,
            stop,
            tell or (lambda _: None),
        )
        return batch.run(iter(manifest.left() if jobs is None else jobs))


@dataclass(eq=False)
class _Hand:
    """A worker as the batch sees it.

    Attributes:
        actor: Ray's handle.
        node: number of its node.
        place: name of its node for people.
        room: how many jobs it takes at once.
        ready: whether it has arrived.
        used: whether it has ended a job.
    """

    actor: Any
    node: str
    place: str
    room: int
    ready: bool = False
    used: bool = False


@dataclass(frozen=True)
class _Flight:
    """A job under way on a worker."""

    job: Job
    hidden: Path
    hand: _Hand


@dataclass
class _Batch:
    """One run on a cluster, all of it in one thread but the taking of jobs, which may wait."""

    ray: Any
    manifest: Manifest
    factory: Callable[[], Stages[Any, Any]]
    listener: Listener
    memory: int
    cpus: int | None
    stop: threading.Event
    tell: Callable[[str], None]
    hands: list[_Hand] = field(default_factory=list)
    arriving: dict[Any, _Hand] = field(default_factory=dict)
    flights: dict[Any, _Flight] = field(default_factory=dict)
    again: deque[Job] = field(default_factory=deque)
    deaths: dict[int, int] = field(default_factory=dict)
    shut_out: set[str] = field(default_factory=set)
    early_deaths: dict[str, int] = field(default_factory=dict)
    looked: float = 0.0
    alone_since: float | None = None

    def __post_init__(self) -> None:
        self.outputs = Outputs(self.manifest)
        self.count = Count()
        # None: there are no more. An exception: jobs cannot be taken any longer.
        self.coming: queue.Queue[Job | Exception | None] = queue.Queue(maxsize=16)
        self.all_taken = False

    def run(self, jobs: Iterator[Job]) -> Tally:
        """Work until every job has ended."""
        threading.Thread(target=self._feed, args=(jobs,), name="jobs", daemon=True).start()
        try:
            while not self.stop.is_set() and not self._finished():
                self._recruit()
                self._give_out()
                self._take_in()
            stopped = self.stop.is_set()
        finally:
            self.stop.set()
            self._send_home()
        self.outputs.tidy()
        return self.count.tally(stopped=stopped)

    def _feed(self, jobs: Iterator[Job]) -> None:
        last: Exception | None = None
        try:
            for job in jobs:
                while not self.stop.is_set():
                    with contextlib.suppress(queue.Full):
                        self.coming.put(job, timeout=0.2)
                        break
                if self.stop.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - handed to the thread that runs the batch
            last = error
        while not self.stop.is_set():
            with contextlib.suppress(queue.Full):
                self.coming.put(last, timeout=0.2)
                return

    def _finished(self) -> bool:
        return self.all_taken and not self.again and not self.flights

    # Workers: one after another as nodes come and go.

    def _recruit(self) -> None:
        """Make workers on nodes that have none.

        Raises:
            RelumeError: nobody has been there to work for too long.
        """
        now = time.monotonic()
        if now - self.looked >= _LOOK:
            self.looked = now
            for node in self.ray.nodes():
                number = node["NodeID"]
                if node["Alive"] and number not in self.shut_out:
                    self._man(node)
        if any(hand.ready for hand in self.hands):
            self.alone_since = None
        elif self.alone_since is None:
            self.alone_since = now
        elif now - self.alone_since > _PATIENCE or (not self.arriving and self.shut_out):
            raise RelumeError(
                "no node of the Ray cluster can work; see the lines above and `ray status`, "
                "then run the same command again to go on"
            )

    def _man(self, node: dict[str, Any]) -> None:
        gpus, cores = (int(node["Resources"].get(name, 0)) for name in ("GPU", "CPU"))
        here = sum(hand.node == node["NodeID"] for hand in self.hands)
        each = min(cores, self.cpus or cores)
        wanted = gpus or (cores // each if each else 0)
        for _ in range(here, wanted):
            share = {"num_gpus": 1, "num_cpus": cores // gpus} if gpus else {"num_cpus": each}
            widths = Widths.here(share["num_cpus"])
            strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                node["NodeID"], soft=False
            )
            actor = (
                self.ray.remote(Worker)
                .options(
                    **share,
                    max_concurrency=widths.jobs + 1,
                    max_restarts=0,
                    max_task_retries=0,
                    scheduling_strategy=strategy,
                )
                .remote(self.factory, widths, self.memory)
            )
            hand = _Hand(actor, node["NodeID"], node["NodeManagerAddress"], room=widths.jobs)
            self.hands.append(hand)
            arrival = actor.arrive.remote(versions())
            self.arriving[arrival] = hand

    def _arrived(self, hand: _Hand, problem: str | None) -> None:
        if problem is None:
            hand.ready = True
        else:
            self._shut_out(hand, problem)

    def _shut_out(self, hand: _Hand, problem: str) -> None:
        """Do without a node from now on."""
        if hand.node in self.shut_out:
            return
        self.shut_out.add(hand.node)
        self.tell(f"node {hand.place}: {problem}; it is left out")
        for each in [each for each in self.hands if each.node == hand.node]:
            self.again += self._dismiss(each)

    def _lost(self, hand: _Hand, error: Exception) -> None:
        """Give the jobs of a dead worker to others."""
        if hand not in self.hands:
            return
        why = _last_words(error)
        for job in self._dismiss(hand):
            self._lose(job, why)
        if not hand.used:
            self.early_deaths[hand.node] = self.early_deaths.get(hand.node, 0) + 1
            if self.early_deaths[hand.node] >= _FRESH:
                self._shut_out(hand, f"its workers die before they have done anything ({why})")

    def _lose(self, job: Job, why: str) -> None:
        self.deaths[job.id] = self.deaths.get(job.id, 0) + 1
        if self.deaths[job.id] < _DEATHS:
            self.again.append(job)
        else:
            line = f"{job.source}: {_DEATHS} workers died while doing it ({why}); see the logs of the cluster"
            self._end(job, Outcome(status="failed", reason=line))

    def _dismiss(self, hand: _Hand) -> list[Job]:
        """Let a worker go; gives the jobs that it was at."""
        self.hands.remove(hand)
        self.arriving = {ref: each for ref, each in self.arriving.items() if each is not hand}
        jobs = [flight.job for flight in self.flights.values() if flight.hand is hand]
        self.flights = {ref: flight for ref, flight in self.flights.items() if flight.hand is not hand}
        # What is only out of reach must not go on for nothing.
        with contextlib.suppress(Exception):
            self.ray.kill(hand.actor)
        for job in jobs:
            self.outputs.drop(job)
        return jobs

    def _send_home(self) -> None:
        """Let all workers go; what they were at is left for the next run."""
        for hand in list(self.hands):
            self.again += self._dismiss(hand)
        for job in self.again:
            self.manifest.put_back(job)

    # Jobs.

    def _give_out(self) -> None:
        for hand in self.hands:
            under_way = sum(flight.hand is hand for flight in self.flights.values())
            while hand.ready and under_way < hand.room:
                job = self._next()
                if job is None:
                    return
                under_way += self._send(job, hand)

    def _next(self) -> Job | None:
        if self.again:
            return self.again.popleft()
        if self.all_taken:
            return None
        try:
            told = self.coming.get_nowait()
        except queue.Empty:
            return None
        if isinstance(told, Exception):
            raise told
        self.all_taken = told is None
        return told

    def _send(self, job: Job, hand: _Hand) -> bool:
        try:
            job, hidden = self.outputs.prepare(job)
        except ManifestError:
            raise
        except RelumeError as error:
            self._end(job, ending(error, job, None, seconds=0.0))
            return False
        self.listener.begun(job)
        # The node has another current folder.
        distant = replace(job, source=_absolute(job.source), target=_absolute(job.target))
        self.flights[hand.actor.perform.remote(distant, hidden)] = _Flight(job, hidden, hand)
        return True

    def _take_in(self) -> None:
        refs = [*self.arriving, *self.flights]
        if not refs:
            self.stop.wait(0.1)
            return
        for ref in self.ray.wait(refs, num_returns=1, timeout=0.2)[0]:
            hand = self.arriving[ref] if ref in self.arriving else self.flights[ref].hand
            try:
                told = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                self._lost(hand, error)
                continue
            if ref in self.arriving:
                del self.arriving[ref]
                self._arrived(hand, told)
            else:
                hand.used = True
                self._returned(self.flights.pop(ref), told)

    def _returned(self, flight: _Flight, report: Report) -> None:
        job, outcome, sealed = flight.job, report.outcome, report.seal
        if report.unseen is not None:
            self.outputs.drop(job)
            if os.access(job.source, os.R_OK):
                self.again.append(job)
                self._shut_out(flight.hand, f"cannot use {report.unseen}; all nodes must share that folder")
            else:
                line = f"{job.source}: cannot be read; check its name and permissions"
                self._end(job, Outcome(status="failed", reason=line))
            return
        if sealed is None:
            line = outcome.reason
            for near in (job.source, job.target):
                line = line.replace(str(_absolute(near)), str(near))
            self.outputs.drop(job)
            self._end(job, replace(outcome, reason=line))
            return
        try:
            self.outputs.commit(job, flight.hidden, _as_seen_here(flight.hidden, sealed), outcome)
        except ManifestError:
            raise
        except (RelumeError, OSError) as error:
            self.outputs.drop(job)
            self._end(job, ending(error, job, flight.hidden, seconds=outcome.seconds))
            return
        self._tell_end(job, outcome)

    def _end(self, job: Job, outcome: Outcome) -> None:
        """Write down and tell an end without an output."""
        self.manifest.ended(job, outcome)
        self._tell_end(job, outcome)

    def _tell_end(self, job: Job, outcome: Outcome) -> None:
        self.count.add(outcome)
        self.listener.ended(job, outcome)


def _as_seen_here(hidden: Path, sealed: Seal) -> Seal:
    """Return a seal with the times as this machine's view of the shared disk has them.

    Raises:
        RelumeError: this machine does not see the whole file.
    """
    with hidden.open("rb") as file:  # opened, as a network disk brings its view up to date then
        there = os.fstat(file.fileno())
    if there.st_size != sealed.size:
        raise RelumeError(
            f"{hidden}: {there.st_size} of {sealed.size} bytes are seen here; the disk is not shared soundly"
        )
    return replace(sealed, mtime_ns=there.st_mtime_ns)


def _last_words(error: Exception) -> str:
    """Return what Ray says of a death: the last line of its text is the cause, where one is known."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200]}" if lines else type(error).__name__


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links
