"""Work shared by processes that end with the one which started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from relume.core.errors import RelumeError

_Given = TypeVar("_Given", bound=tuple[Any, ...])
_Made = TypeVar("_Made")
_WAITING = 3
"""Jobs for each process that are handed out before their time, so that none waits."""


class Workers:
    """Processes that share work; a context manager, which ends them.

    Args:
        count: how many; 1 works in this one. They are started with the first work.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def results(
        self, function: Callable[..., _Made], todo: Sequence[_Given]
    ) -> Iterator[tuple[_Given, _Made]]:
        """Yield what a function makes of each tuple of arguments, in the order in which it is made.

        Args:
            function: of a module, so that other processes find it.
            todo: arguments; they and the results are sent between processes.

        Raises:
            RelumeError: a process was ended from outside.
        """
        if self._count == 1 or not todo:
            for given in todo:
                yield given, function(*given)
            return
        if self._pool is None:
            # libvips and torch have threads, and a forked process with threads may wait for ever.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=_begin)
        left = iter(todo)
        waiting: dict[Future[_Made], _Given] = {}
        try:
            while True:
                for given in islice(left, _WAITING * self._count - len(waiting)):
                    waiting[self._pool.submit(function, *given)] = given
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool:
            raise RelumeError(
                "a working process was ended from outside, perhaps for lack of memory; "
                "the same command goes on, with --workers 1 it takes the least memory"
            ) from None


def _begin() -> None:
    """Prepare a process: one thread, no ear for Ctrl-C, which its parent hears, and no life after that."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
