"""The time and the memory that one piece of work takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from relume.core.memory import memory_taken

_Result = TypeVar("_Result")

BRIEF = 5.0
"""Seconds up to which work is done a second time, as the first time also sets things up."""


@dataclass(frozen=True, kw_only=True)
class Expense:
    """What a piece of work took.

    Attributes:
        seconds: of the faster of two times, or of one where that took long.
        memory: the most that was in use at once beyond what was before, in bytes; None where this system
            does not tell (`core.memory`).
    """

    seconds: float
    memory: int | None


def expense_of(work: Callable[[], _Result], *, device: str) -> tuple[_Result, Expense]:
    """Do a piece of work once or twice.

    Args:
        work: what to do; it waits for the device before it returns.
        device: where it runs.

    Returns:
        What the first time gave, and what it took.
    """
    with memory_taken(device) as taken:
        seconds, result = _timed(work)
    if seconds <= BRIEF:
        seconds = min(seconds, _timed(work)[0])
    return result, Expense(seconds=seconds, memory=taken.bytes)


def _timed(work: Callable[[], _Result]) -> tuple[float, _Result]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result
