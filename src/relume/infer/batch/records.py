"""What a batch writes down of a job: how far it has come, and by what its output is recognised."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class State(enum.IntEnum):
    """How far a job has come."""

    PLANNED = 0
    STARTED = 1
    READY = 2
    DONE = 3
    FAILED = 4
    SKIPPED = 5


@dataclass(frozen=True, kw_only=True)
class Seal:
    """By what an output is recognised.

    Attributes:
        size: in bytes.
        mtime_ns: time of its last change, in nanoseconds; a rename keeps it.
        sha256: of its content.
    """

    size: int
    mtime_ns: int
    sha256: bytes


@dataclass(frozen=True, kw_only=True)
class Record:
    """One job of the manifest with its end.

    Attributes:
        source: the input.
        target: the output, None where there could be none.
        state: how far it came.
        reason: why it is not done.
        seconds: what it took.
        pixels: of the output.
        facts: what its stages told.
        sha256: of the output, in hexadecimal digits.
    """

    source: Path
    target: Path | None
    state: State
    reason: str
    seconds: float
    pixels: int
    facts: Mapping[str, Any]
    sha256: str | None
