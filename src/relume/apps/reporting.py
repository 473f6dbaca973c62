"""How a batch is told: a line for each picture, a bar on a terminal, what failed, and a table of all."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.text import Text

from relume.apps.console import err, megabytes, printable, progress_bar, say, say_error, say_note
from relume.core.errors import RelumeError
from relume.core.files import reason, write_text
from relume.core.tables import csv_text, table_kind
from relume.infer.batch.pace import Pace
from relume.infer.batch.planning import Planned
from relume.infer.batch.records import Record
from relume.infer.batch.stages import Job, Outcome, Tally
from relume.infer.consistency import in_words

MOST_SHOWN = 20
"""Failures that are told in full; of more, the manifest or a report tells."""

_WAITING = "waiting for pictures"


class Failures:
    """What went wrong with single pictures, told when it is time.

    Args:
        at_once: whether each is told when it comes, rather than all of them at the end.
    """

    def __init__(self, *, at_once: bool) -> None:
        self.count = 0
        self._at_once = at_once
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Hear of one."""
        self.count += 1
        if self._at_once:
            say_error(line)
        elif len(self._lines) < MOST_SHOWN:
            self._lines.append(line)

    def tell(self, more: str) -> None:
        """Tell those that were not told at once; `more` says where the rest can be read."""
        for line in self._lines:
            say_error(line)
        if not self._at_once and self.count > len(self._lines):
            say_note(f"{self.count - len(self._lines)} more failed; {more}")


class Reporter:
    """A batch's listener; its block shows the bar.

    Args:
        planned: what is to be done; None when pictures are waited for.
        failures: where failures go.
    """

    def __init__(self, planned: Planned | None, failures: Failures) -> None:
        self._total = None if planned is None else sum(count for count, _ in planned.left.values())
        self._failures = failures
        self._pace = Pace({} if planned is None else planned.left)
        self._bar = progress_bar(seconds_left=self._pace.seconds_left)
        first = _WAITING if self._total is None else "starting"
        self._task = self._bar.add_task(first, total=None if self._total is None else 1.0)
        self._ended = 0
        self._lock = threading.Lock()
        self._under_way: dict[int, Job] = {}
        self._traced = False

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def begun(self, job: Job) -> None:
        """Hear that a job was taken up; on a cluster that is all that is heard before its end."""
        with self._lock:
            self._under_way[job.id] = job
        self._show()

    def advanced(self, job: Job, share: float) -> None:
        """Hear how much of a job's computation is done."""
        self._pace.advanced(job, share)
        self._show(job)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Tell how a job ended."""
        self._ended += 1
        self._pace.ended(job, outcome)
        with self._lock:
            self._under_way.pop(job.id, None)
        if outcome.status == "done":
            say(done_line(job.source, job.target, outcome))
            for note in outcome.notes:
                say_note(f"{job.source.name}: {note}")
        elif outcome.status == "skipped":
            say_note(f"{job.source}: skipped: {outcome.reason}")
        else:
            self._failures.add(outcome.reason)
            if outcome.trace and not self._traced:
                self._traced = True
                err.print(Text(outcome.trace))
        self._show()

    def _show(self, job: Job | None = None) -> None:
        """Show a job, or the first of those under way, with how far the whole is."""
        with self._lock:
            job = job or next(iter(self._under_way.values()), None)
        share = None if self._total is None else self._pace.share()
        name = f"{_WAITING} ({self._ended} so far)" if job is None else printable(job.source.name)
        if job is None and self._total is not None:
            name = "ending"
        elif self._total is not None and self._total > 1:
            failed = f", {self._failures.count} failed" if self._failures.count else ""
            name = f"{name} ({min(self._ended + 1, self._total)} of {self._total}{failed})"
        self._bar.update(self._task, description=name, completed=share)


def done_line(source: Path, target: Path, outcome: Outcome) -> str:
    """Say in one line what became of a picture."""
    facts = outcome.facts
    models = " then ".join(facts["models"]) or "resampled"
    return (
        f"{source} → {target}  {facts['from']} → {facts['to']}, {models}, {facts['engine']}, "
        f"consistency {in_words(facts['consistency'])}, {facts['work_seconds']:.1f} s, "
        f"peak {megabytes(facts['peak'])}"
    )


def summary(tally: Tally, *, failed: int, before: int) -> str:
    """Say in one line what a batch came to.

    Args:
        tally: of the run.
        failed: those that were refused as well.
        before: pictures that an earlier run has done.
    """
    parts = [f"{tally.done} enlarged", f"{failed} failed"]
    if tally.skipped:
        parts.append(f"{tally.skipped} skipped")
    if before:
        parts.append(f"{before} done before")
    line = ", ".join(parts)
    if tally.done:
        pace = tally.pixels / 1e6 / max(tally.seconds, 1e-3)
        line += f"; {tally.seconds:.1f} s, {pace:.2f} megapixels/s"
    return line


def write_report(records: Iterable[Record], path: Path) -> None:
    """Write a table of pictures with their ends, JSON or CSV by the name; an older file is replaced.

    Raises:
        RelumeError: another ending, or it cannot be written.
    """
    check_report(path)
    rows = [_row(record) for record in records]
    if table_kind(path) == "json":
        text = json.dumps(rows, indent=1)
    else:
        text = csv_text(({**row, "models": " ".join(row["models"])} for row in rows), _COLUMNS)
    write_text(path, text)


def check_report(path: Path) -> None:
    """Check that a report can be written there, before the work that it is to tell of.

    Raises:
        RelumeError: it cannot.
    """
    table_kind(path)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise RelumeError(f"{path}: cannot be written: {reason(error)}; choose another folder") from None


_COLUMNS = (
    "source", "target", "state", "reason", "from", "to", "models", "engine", "consistency", "work_seconds",
    "sha256",
)  # fmt: skip


def _row(record: Record) -> dict[str, Any]:
    facts = record.facts if record.state.name == "DONE" else {}
    return {
        "source": str(record.source),
        "target": None if record.target is None else str(record.target),
        "state": record.state.name.lower(),
        "reason": record.reason,
        **{name: facts.get(name) for name in _COLUMNS[4:-1]},
        "models": facts.get("models", []),
        "sha256": record.sha256 if facts else None,
    }
