"""What does the work on a node of a cluster."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from relume.core.errors import RelumeError
from relume.infer.batch.lanes import Lanes, Widths
from relume.infer.batch.pipeline import ending
from relume.infer.batch.records import Seal
from relume.infer.batch.stages import Job, Outcome, Stages


def versions() -> dict[str, str | None]:
    """Return the versions, here, of what outputs depend on; None for what is not installed as a package."""
    found: dict[str, str | None] = {}
    for name in ("relume", "torch", "pyvips-binary"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


@dataclass(frozen=True)
class Report:
    """What a worker says of a job.

    Attributes:
        outcome: how it ended.
        seal: of the whole output, where there is one.
        unseen: a folder that the node does not see, or may not use, so that the job was not begun.
    """

    outcome: Outcome = field(default_factory=Outcome)
    seal: Seal | None = None
    unseen: Path | None = None


class Worker:
    """Does jobs on a node; Ray makes an actor of it."""

    def __init__(self, factory: Callable[[], Stages[Any, Any]], widths: Widths, memory: int) -> None:
        self._factory = factory
        self._widths = widths
        self._memory = memory
        self._lanes: Lanes[Any, Any] | None = None

    def arrive(self, wanted: dict[str, str | None]) -> str | None:
        """Get ready for work; gives a line where that cannot be.

        Args:
            wanted: `versions` on the machine that runs the batch.
        """
        for name, here in versions().items():
            if here != wanted[name]:
                return f"has {name} {here}, not {wanted[name]}; install the same there"
        try:
            stages = self._factory()
        except RelumeError as error:
            return f"cannot work: {error}"
        self._lanes = Lanes(stages, widths=self._widths, memory=self._memory, stop=threading.Event())
        return None

    def perform(self, job: Job, hidden: Path) -> Report:
        """Do a job up to its whole output at `hidden`."""
        if self._lanes is None:
            raise RuntimeError("a worker was given a job before it had arrived")
        # The hidden folder was made just now under a name of its own: whoever sees it shares the disk.
        for path, right in ((job.source, os.R_OK), (hidden.parent, os.W_OK)):
            if not os.access(path, right):
                return Report(unseen=path.parent)
        began = time.perf_counter()
        try:
            outcome, sealed = self._lanes.perform(job, hidden, lambda _: None)
        except Exception as error:  # noqa: BLE001 - one picture never stops the rest
            return Report(ending(error, job, hidden, seconds=time.perf_counter() - began))
        return Report(outcome, sealed)
