"""What a batch is made of: a job, the stages that do it, how it ended, and who is told.

The batch machinery knows no model and no command line. Whoever has work to do gives it as
`Stages`; the machinery decides what runs when, keeps the books, and gives outputs their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from relume.core.errors import RelumeError

Advance = Callable[[float], None]
"""Told the share of a picture's computation that is done, 0..1; may raise `Stopped`."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to do.

    Attributes:
        id: its number in the manifest.
        source: the input.
        target: the output.
        size: bytes of the input when it was planned, None where it could not be looked at.
        replace: whether a file at the target may be replaced.
        attempt: how many times it has been taken up, this one included.
        scratch: a hidden folder of this attempt's own on the target's disk, for whatever the stages put
            there; it is removed with all that is in it, also after a kill. None before it is taken up.
    """

    id: int
    source: Path
    target: Path
    size: int | None = None
    replace: bool = False
    attempt: int = 0
    scratch: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much memory a job needs for its pictures, in bytes.

    Attributes:
        decoded: from its decoding to the end of its computation.
        computed: from the beginning of its computation until it is encoded.
    """

    decoded: int
    computed: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: "done"; "failed", and the next run tries again; "skipped": nothing to do for this
            input as long as it stays as it is.
        reason: one line on why it is not done.
        seconds: from taking it up to its end.
        pixels: of the output.
        notes: what a user should know, one sentence each.
        facts: what the manifest keeps beside that, as JSON has it (sizes, measures …).
        trace: of an error that nobody foresaw, for a report; not kept in the manifest.
    """

    status: Literal["done", "failed", "skipped"] = "done"
    reason: str = ""
    seconds: float = 0.0
    pixels: int = 0
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    trace: str = ""


class Skip(RelumeError):  # noqa: N818 - no error, but it travels as one
    """Raised by a stage: there is nothing to do for this input, and why."""


class Stopped(Exception):  # noqa: N818
    """Raised inside a stage when the batch is being stopped; the job is left for the next run."""


Decoded = TypeVar("Decoded")
Computed = TypeVar("Computed")


class Stages(Protocol[Decoded, Computed]):
    """The work itself, in three stages that run in threads of their own, each for another picture.

    `decode` and `encode` may run in several threads at once, `compute` always in the same one. What
    the user can mend is raised as a `RelumeError` whose line names the source or the path given.
    """

    def weigh(self, job: Job) -> Load:
        """Return how much memory the job will hold; called before `decode`, so a header must do."""
        ...

    def decode(self, job: Job) -> Decoded:
        """Read the job's source."""
        ...

    def compute(self, decoded: Decoded, advance: Advance) -> Computed:
        """Turn what was read into what is to be written, telling `advance` now and then."""
        ...

    def encode(self, job: Job, computed: Computed, hidden: Path) -> Outcome:
        """Write the whole output to `hidden`, a free name in the scratch folder, ending as the target does.

        The machinery gives it the target's place afterwards.
        """
        ...


class Listener(Protocol):
    """Who is told how a batch goes on."""

    def begun(self, job: Job) -> None:
        """Hear that a job was taken up; told by any thread."""
        ...

    def advanced(self, job: Job, share: float) -> None:
        """Hear how much of a job's computation is done, 0..1; told by the computing thread."""
        ...

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Hear how a job ended; told by the thread that runs the batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one run of a batch came to.

    Attributes:
        done, failed, skipped: pictures that ended so in this run.
        pixels: of the outputs made.
        seconds: from beginning to end.
        stopped: whether it was interrupted, with work left.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    pixels: int = 0
    seconds: float = 0.0
    stopped: bool = False
