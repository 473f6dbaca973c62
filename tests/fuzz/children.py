"""Runs pieces of work in processes of their own, so that a crash, a hang or a blow-up is seen, not suffered.

A server (this file, run as a program) imports everything once and then forks for each
piece of work: a few milliseconds instead of seconds. The child's memory, processor time
and output are measured, and its memory and time are limited.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

MEMORY = 1 << 30
"""Bytes of address space beyond the server's own, after which the system refuses more."""

OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PROCESSOR_SECONDS = 20
REAL_SECONDS = 240


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a piece of work ended.

    Attributes:
        status: exit status, None where a signal killed it.
        signal: name of that signal.
        out: what it said on standard output.
        err: what it said on standard error.
        grown: bytes of resident memory beyond what a child holds that does nothing.
        seconds: of processor time.
    """

    status: int | None
    signal: str | None
    out: str
    err: str
    grown: int
    seconds: float

    def complaint(self, *, memory: int, quiet: bool) -> str | None:
        """Say what is wrong with it, None where it is as it must be.

        Args:
            memory: bytes that it may have taken.
            quiet: whether success must leave stderr empty.
        """
        if self.signal is not None:
            return f"killed by {self.signal}"
        if "Traceback" in self.err or "Traceback" in self.out:
            return "traceback"
        if self.grown > memory:
            return f"took {self.grown / 1e6:.0f} MB"
        lines = self.err.splitlines()
        if self.status == 0:
            return "noise on stderr" if quiet and lines else None
        if len(lines) != 1:
            return f"status {self.status} with {len(lines)} lines on stderr"
        if len(lines[0]) > 5000 or OBEYED.search(lines[0]):
            return "a line that is too long or that a terminal obeys"
        return None


class Children:
    """The server, from the side of who wants work done; a context manager."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Children:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NO_COLOR": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)
        assert self._server.stdout is not None
        self._server.stdout.close()

    def run(self, job: str, *arguments: object) -> Outcome:
        """Do a piece of work: a function of `jobs.py` and its arguments."""
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([job, *map(str, arguments)]) + "\n")
        self._server.stdin.flush()
        return Outcome(**json.loads(self._server.stdout.readline()))


def _work(function: Any, arguments: list[str], out: int, err: int) -> None:
    """The child's life."""
    status = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.setitimer(signal.ITIMER_REAL, REAL_SECONDS)
        status = function(*arguments)
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is, the parent is to see it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _fork(function: Any, arguments: list[str], held: int) -> Outcome:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _work(function, arguments, out.fileno(), err.fileno())
        _, ended, usage = os.wait4(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
    return Outcome(
        status=os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else None,
        signal=signal.Signals(os.WTERMSIG(ended)).name if os.WIFSIGNALED(ended) else None,
        out=texts[0],
        err=texts[1],
        grown=max(0, usage.ru_maxrss * 1024 - held),
        seconds=usage.ru_utime + usage.ru_stime,
    )


def _serve() -> None:
    import jobs

    held = _fork(lambda: 0, [], 0).grown
    for line in sys.stdin:
        job, *arguments = json.loads(line)
        print(json.dumps(_fork(getattr(jobs, job), arguments, held).__dict__), flush=True)


if __name__ == "__main__":
    _serve()
