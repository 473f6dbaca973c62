"""Runs pieces of work in processes of their own that begin in milliseconds, as all is imported already.

A server (this file, run as a program) imports modules once and forks for each piece of work. What the work
prints, how it ends, and the memory and processor time that it takes come back. A process that is forked from
one with threads may hang, so nothing that the server imports may start any.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where the system stops a piece of work.

    Attributes:
        memory: bytes of address space beyond the server's own; None: as much as there is.
        processor: seconds of processor time; None: as many as it takes.
        real: seconds.
    """

    memory: int | None = None
    processor: int | None = None
    real: float = 300


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a piece of work ended.

    Attributes:
        status: exit status; that of a process killed by signal n is -n.
        out: what it said on standard output; bytes that are no UTF-8 are escaped as lone surrogates.
        err: what it said on standard error.
        grown: bytes of resident memory beyond what a child holds that does nothing.
        seconds: of processor time.
    """

    status: int
    out: str
    err: str
    grown: int
    seconds: float


class Server:
    """The server, from the side of who wants work done; a context manager.

    Args:
        modules: what it imports.
        environment: its variables.
    """

    def __init__(self, *modules: str, environment: Mapping[str, str]) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._modules, self._environment = modules, dict(environment)

    def __enter__(self) -> Server:
        self._server = subprocess.Popen(
            [sys.executable, __file__, *self._modules],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        with contextlib.suppress(BrokenPipeError):  # it was ended before
            self._server.communicate(timeout=60)

    def run(
        self,
        job: str,
        *arguments: object,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        limits: Limits = Limits(),
    ) -> Ended:
        """Do a piece of work to its end.

        Args:
            job: a function that takes strings, as "module:function".
            arguments: they are sent as strings.
            cwd: the folder it runs in; None: the server's.
            environment: all of its variables; None: the server's.
            limits: where it is stopped.

        Raises:
            RuntimeError: the server itself was ended, which names the work that was under way.
        """
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {
            "job": job,
            "arguments": [os.fspath(one) if isinstance(one, Path) else str(one) for one in arguments],
            "cwd": None if cwd is None else os.fspath(cwd),
            "environment": None if environment is None else dict(environment),
            "limits": asdict(limits),
        }
        answer = ""
        with contextlib.suppress(BrokenPipeError):  # it is gone, so there is no answer either
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            answer = self._server.stdout.readline()
        if not answer.endswith("\n"):
            which = f"serving.py, pid {self._server.pid}"
            work = " ".join([job, *map(str, arguments)])
            raise RuntimeError(
                f"the process that tests fork their work from ({which}) ended with status "
                f"{self._server.wait(60)} at {work}; if nobody ended it, the machine lacks memory: run fewer "
                "tests at once"
            )
        return Ended(**json.loads(answer))


def _limit(memory: int | None, processor: int | None, real: float) -> None:
    if memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if processor is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (processor, processor + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, real)


def _work(request: Mapping[str, Any], out: int, err: int) -> int:
    """Return the exit status of the work, in the child."""
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    try:
        if request["environment"] is not None:
            os.environ.clear()
            os.environ.update(request["environment"])
        if request["cwd"] is not None:
            os.chdir(request["cwd"])
        _limit(**request["limits"])
        module, function = request["job"].split(":")
        return int(getattr(import_module(module), function)(*request["arguments"]))
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else left.code is not None
    except BaseException:  # noqa: BLE001 - whatever it is, who asked is to see it
        traceback.print_exc()
        return 1


def _leave(status: int) -> NoReturn:
    """End as a program does, but leave out what takes the longest: taking every module apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _fork(request: Mapping[str, Any], held: int) -> Ended:
    """Do the work in a child and return how it ended."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            _leave(_work(request, out.fileno(), err.fileno()))
        _, status, usage = os.wait4(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "surrogateescape"))
    return Ended(
        status=os.waitstatus_to_exitcode(status),
        out=texts[0],
        err=texts[1],
        grown=max(0, usage.ru_maxrss * 1024 - held),
        seconds=usage.ru_utime + usage.ru_stime,
    )


def _serve(modules: list[str]) -> None:
    """Do what is asked for, line by line."""
    for module in modules:
        import_module(module)
    gc.freeze()  # else the first collection in each child would copy every page that objects lie on
    nothing = {"job": "serving:nothing", "arguments": [], "cwd": None, "environment": None}
    held = _fork({**nothing, "limits": asdict(Limits())}, 0).grown
    for line in sys.stdin:
        print(json.dumps(asdict(_fork(json.loads(line), held))), flush=True)


def libraries() -> list[str]:
    """Return what `relume` imports sooner or later, but for its own command line."""
    import relume

    rooms = (room for room in pkgutil.iter_modules(relume.__path__, "relume.") if room.name != "relume.apps")
    inside = [
        module.name
        for room in rooms
        if room.ispkg
        for module in pkgutil.walk_packages([*import_module(room.name).__path__], f"{room.name}.")
    ]
    return ["typer", "rich.progress", "rich.table", "torch.utils.tensorboard", *inside]


def nothing() -> int:
    """What takes the least memory that a child can take."""
    return 0


def relume(*arguments: str) -> int:
    """Run the command; its own modules are imported now, as they look at the variables given to a child."""
    sys.argv = ["relume", *arguments]
    import_module("relume.apps.cli").main()
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1:])
