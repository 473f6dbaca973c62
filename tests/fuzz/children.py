"""Has work done in processes of their own, so that a crash, a hang or a blow-up is seen, not suffered."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from types import TracebackType

from serving import Ended, Limits, Server

LIMITS = Limits(memory=1 << 30, processor=20, real=240)
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def complaint(ended: Ended, *, memory: int, quiet: bool) -> str | None:
    """Say what is wrong with how a piece of work ended, None where it is as it must be.

    Args:
        ended: how it did.
        memory: bytes that it may have taken.
        quiet: whether success must leave stderr empty.
    """
    if ended.status < 0:
        return f"killed by {signal.Signals(-ended.status).name}"
    if "Traceback" in ended.err or "Traceback" in ended.out:
        return "traceback"
    if ended.grown > memory:
        return f"took {ended.grown / 1e6:.0f} MB"
    lines = ended.err.splitlines()
    if ended.status == 0:
        return "noise on stderr" if quiet and lines else None
    if len(lines) != 1:
        return f"status {ended.status} with {len(lines)} lines on stderr"
    if len(lines[0]) > 5000 or OBEYED.search(lines[0]):
        return "a line that is too long or that a terminal obeys"
    return None


class Children:
    """A server for the functions of `jobs.py`; a context manager."""

    def __init__(self) -> None:
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NO_COLOR": "1"}
        here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self._server = Server("jobs", environment={**os.environ, **one_thread, "PYTHONPATH": here})

    def __enter__(self) -> Children:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)

    def run(self, job: str, *arguments: object) -> Ended:
        """Do a piece of work: a function of `jobs.py` and its arguments."""
        return self._server.run(f"jobs:{job}", *arguments, limits=LIMITS)
