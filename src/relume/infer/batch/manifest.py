"""A batch on disk: what was asked, with which settings, and what became of each picture.

States of a job, each written down before the step that it allows:

    planned → started → ready → done
                 ↓        (the output lies whole in a hidden folder; its size and sha256 are known)
          failed, skipped

A process killed at any moment leaves jobs started or ready. The next one finds them here and puts
things right (`outputs.recover`): what is whole becomes done, everything else is planned again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from relume.infer.batch.database import NAME, ManifestError, connect, named, stored, telling
from relume.infer.batch.records import Record, Seal, State
from relume.infer.batch.stages import Job, Outcome

FILE_NAME = ".relume-job.sqlite"
"""What a manifest is called in the folder that it belongs to."""

_PAGE = 256
# The order is forced, as the asked ones are walked through; "id IN (SELECT …)" copies them for each page.
_ASKED = "asked CROSS JOIN jobs ON jobs.id = asked.id"
_JOB = "jobs.id, source_folder, source_name, target_folder, target_name, size, replaceable, jobs.attempt"


class Manifest:
    """The manifest of one batch, held by this process until closed; any thread may use it.

    Attributes:
        path: its file, None when it lives in memory for one run only.
        token: eight hexadecimal digits in the names of its hidden folders.
        settings: of the work, as given.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any] | None) -> None:
        self.path = path
        self._root = None if path is None else os.path.realpath(path.parent)
        self._lock = threading.RLock()
        self._ids: dict[str, int] = {}
        self._shown: dict[int, str] = {}
        self._base = connect(path, token=secrets.token_hex(4))
        try:
            with telling(path):
                for table in (
                    "asked (id INTEGER PRIMARY KEY, search INTEGER)",
                    f"links (folder INTEGER, name {NAME}, UNIQUE (folder, name))",
                    "passed (id INTEGER PRIMARY KEY)",
                ):
                    self._base.execute(f"CREATE TEMP TABLE {table}")
                self.token: str = self._base.execute("SELECT token FROM book").fetchone()[0]
                self.settings, self.run = self._settle_run(settings)
        except BaseException:
            self._base.close()
            raise

    @classmethod
    def open(cls, path: Path | None, settings: Mapping[str, Any]) -> Self:
        """Open a manifest, or begin it, for work with these settings.

        Pictures done with other settings stay known as outputs, but are not taken for this work's.

        Args:
            path: its file, whose folder is there; None keeps it in memory.
            settings: whatever decides how outputs look, as JSON has it.

        Raises:
            ManifestError: another process holds it, it is none of ours, or it cannot be kept there.
        """
        return cls(path, json.loads(json.dumps(settings)))

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Open a manifest with the settings that were used last.

        Raises:
            ManifestError: there is none, or as `open` says.
        """
        if not path.is_file():
            raise ManifestError(f"{path}: there is no such manifest; name the {FILE_NAME} of a batch")
        return cls(path, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; a file that knows of no output and no work left is removed."""
        with self._lock, telling(self.path):
            if self.path is not None and not self._worth_keeping():
                self._remove(self.path)
            self._base.close()

    def _remove(self, path: Path) -> None:
        """Remove the file while it is still held, so that nobody else can have opened it."""
        try:
            # Without its log first, so that only this one file goes.
            self._base.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error:  # on a full disk
            for ending in ("-wal", "-shm"):
                with contextlib.suppress(OSError):
                    path.with_name(path.name + ending).unlink()
        with contextlib.suppress(OSError):
            path.unlink()

    def _worth_keeping(self) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM jobs WHERE target_name IS NOT NULL AND state != ?)"
        return bool(self._base.execute(query, (State.FAILED,)).fetchone()[0])

    def _settle_run(self, settings: Mapping[str, Any] | None) -> tuple[dict[str, Any], int]:
        if settings is None:
            row = self._base.execute(
                "SELECT settings, id FROM runs WHERE used ORDER BY used DESC LIMIT 1"
            ).fetchone()
            if row is None:
                raise ManifestError(f"{self.path}: this manifest holds no batch; run the first command again")
            return json.loads(row[0]), row[1]
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._base.execute(
            "INSERT OR IGNORE INTO runs (digest, settings, used) VALUES (?, ?, 0)", (digest, text)
        )
        row = self._base.execute("SELECT id FROM runs WHERE digest = ?", (digest,)).fetchone()
        return dict(settings), row[0]

    def differences(self, run: int) -> str:
        """Say in a few words how the settings of another run of the manifest differ from this one's."""
        row = self._base.execute("SELECT settings FROM runs WHERE id = ?", (run,)).fetchone()
        theirs = json.loads(row[0])
        keys = [key for key in {**theirs, **self.settings} if theirs.get(key) != self.settings.get(key)]
        said = [f"{key} {_told(theirs.get(key))}, now {_told(self.settings.get(key))}" for key in keys[:3]]
        return "; ".join(said) + (" …" if len(keys) > 3 else "")

    # Folders: known by their real places, shown as the user named them.

    def folder(self, shown: str) -> int:
        """Return the number of a folder, which is given one when it is new."""
        if shown not in self._ids:
            place = os.path.realpath(shown)
            if self._root is not None and (place == self._root or place.startswith(self._root + os.sep)):
                # Within the manifest's own folder: all of it may be moved elsewhere together.
                place = os.path.relpath(place, self._root)
            row = self._base.execute("SELECT id FROM folders WHERE path = ?", (stored(place),)).fetchone()
            if row is None:
                cursor = self._base.execute("INSERT INTO folders (path) VALUES (?)", (stored(place),))
                row = (cursor.lastrowid,)
            self._ids[shown] = row[0]
            self._shown.setdefault(row[0], shown)
        return self._ids[shown]

    def _folder_shown(self, number: int) -> str:
        if number not in self._shown:
            row = self._base.execute("SELECT path FROM folders WHERE id = ?", (number,)).fetchone()
            place = os.path.join(self._root or "", named(row[0]))  # noqa: PTH118 - normalised next
            self._shown[number] = os.path.normpath(place)
        return self._shown[number]

    def path_of(self, folder: int, name: bytes | str) -> Path:
        """Return the path of a name in a numbered folder."""
        return Path(self._folder_shown(folder), named(name))

    # What is to be done.

    def left(self) -> Iterator[Job]:
        """Yield what was asked in this run and is not done, in the order of planning."""
        last = 0
        while True:
            with self._lock, telling(self.path):
                rows = self._base.execute(
                    f"SELECT {_JOB} FROM {_ASKED} WHERE asked.id > ? AND state = ? ORDER BY asked.id LIMIT ?",
                    (last, State.PLANNED, _PAGE),
                ).fetchall()
                jobs = [self._job(row) for row in rows]
            if not jobs:
                return
            last = jobs[-1].id
            yield from jobs

    def jobs_after(self, last: int) -> list[Job]:
        """Return the next jobs of this work after a number, done or not; none when there are no more."""
        with self._lock, telling(self.path):
            rows = self._base.execute(
                f"SELECT {_JOB} FROM jobs WHERE id > ? AND run = ? AND target_folder IS NOT NULL "
                "ORDER BY id LIMIT ?",
                (last, self.run, _PAGE),
            ).fetchall()
            return [self._job(row) for row in rows]

    def job(self, number: int) -> Job:
        """Return one job by its number."""
        with self._lock, telling(self.path):
            return self._job(
                self._base.execute(f"SELECT {_JOB} FROM jobs WHERE id = ?", (number,)).fetchone()
            )

    def _job(self, row: tuple[Any, ...]) -> Job:
        return Job(
            id=row[0],
            source=self.path_of(row[1], row[2]),
            target=self.path_of(row[3], row[4]),
            size=row[5],
            replace=bool(row[6]),
            attempt=row[7],
        )

    # What becomes of it.

    def started(self, job: Job) -> Job:
        """Write down that a job is taken up, and return it with the number of this attempt."""
        self._write(
            "UPDATE jobs SET state = ?, attempt = ? WHERE id = ?", State.STARTED, job.attempt + 1, job.id
        )
        return replace(job, attempt=job.attempt + 1)

    def ready(self, job: Job, seal: Seal, outcome: Outcome) -> None:
        """Write down what an output is before it gets its name."""
        facts = {**outcome.facts, **({"notes": list(outcome.notes)} if outcome.notes else {})}
        self._write(
            "UPDATE jobs SET state = ?, made_size = ?, made_mtime_ns = ?, made_sha256 = ?, seconds = ?, "
            "pixels = ?, facts = ?, reason = NULL WHERE id = ?",
            State.READY, seal.size, seal.mtime_ns, seal.sha256, outcome.seconds, outcome.pixels,
            json.dumps(facts) if facts else None, job.id,
        )  # fmt: skip

    def done(self, job: Job) -> None:
        """Write down that an output has its name."""
        self._write("UPDATE jobs SET state = ?, replaceable = 0 WHERE id = ?", State.DONE, job.id)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Write down why a job failed or was skipped."""
        state = State.SKIPPED if outcome.status == "skipped" else State.FAILED
        self._write(
            "UPDATE jobs SET state = ?, reason = ?, seconds = ? WHERE id = ?",
            state, outcome.reason, outcome.seconds, job.id,
        )  # fmt: skip

    def put_back(self, job: Job) -> None:
        """Write down that a job was given up and is still to be done."""
        self._write("UPDATE jobs SET state = ? WHERE id = ?", State.PLANNED, job.id)

    def _write(self, statement: str, *values: object) -> None:
        with self._lock, telling(self.path):
            self._base.execute(statement, values)

    # What a killed run left, and what is asked about the past.

    def under_way(self) -> list[tuple[Job, State, Seal | None]]:
        """Return the jobs that a killed run was at; the seal is there for those that were ready."""
        with self._lock, telling(self.path):
            rows = self._base.execute(
                f"SELECT {_JOB}, state, made_size, made_mtime_ns, made_sha256 FROM jobs "
                f"WHERE state IN ({State.STARTED:d}, {State.READY:d})"
            ).fetchall()
            return [
                (
                    self._job(row[:8]),
                    State(row[8]),
                    Seal(size=row[9], mtime_ns=row[10], sha256=row[11]) if row[8] == State.READY else None,
                )
                for row in rows
            ]

    def littered(self, job: int, attempt: int) -> None:
        """Write down that an attempt's hidden folder could not be removed."""
        self._write("INSERT INTO litter VALUES (?, ?)", job, attempt)

    def litter(self) -> list[Job]:
        """Return the attempts whose hidden folders could not be removed."""
        with self._lock, telling(self.path):
            rows = self._base.execute(
                f"SELECT {_JOB}, litter.attempt FROM litter JOIN jobs ON id = job "
                "WHERE target_folder IS NOT NULL"
            ).fetchall()
            return [replace(self._job(row[:8]), attempt=row[8]) for row in rows]

    def swept(self, job: int, attempt: int) -> None:
        """Write down that it could be removed after all."""
        self._write("DELETE FROM litter WHERE job = ? AND attempt = ?", job, attempt)

    def records(self, *states: State, asked: bool = True) -> Iterator[Record]:
        """Yield jobs with their ends, in the order of planning.

        Args:
            states: which to take; all of them when none is given.
            asked: whether only those asked in this run.
        """
        wanted = ", ".join(f"{state:d}" for state in states or State)
        table, number = (_ASKED, "asked.id") if asked else ("jobs", "jobs.id")
        last = 0
        while True:
            with self._lock, telling(self.path):
                rows = self._base.execute(
                    "SELECT jobs.id, source_folder, source_name, target_folder, target_name, state, reason, "
                    f"seconds, pixels, facts, made_sha256 FROM {table} "
                    f"WHERE {number} > ? AND state IN ({wanted}) ORDER BY {number} LIMIT ?",
                    (last, _PAGE),
                ).fetchall()
                found = [self._record(row) for row in rows]
            if not found:
                return
            last = rows[-1][0]
            yield from found

    def _record(self, row: tuple[Any, ...]) -> Record:
        return Record(
            source=self.path_of(row[1], row[2]),
            target=None if row[4] is None else self.path_of(row[3], row[4]),
            state=State(row[5]),
            reason=row[6] or "",
            seconds=row[7] or 0.0,
            pixels=row[8] or 0,
            facts=json.loads(row[9]) if row[9] else {},
            sha256=row[10].hex() if row[10] else None,
        )

    def counts(self, *, asked: bool = True) -> dict[State, int]:
        """Return how many jobs are in each state; of this run, or of all when `asked` is false."""
        table = _ASKED if asked else "jobs"
        with self._lock, telling(self.path):
            rows = self._base.execute(f"SELECT state, count(*) FROM {table} GROUP BY state").fetchall()
        return {state: dict(rows).get(state, 0) for state in State}

    def made_in(self, folder: str, *, within: str) -> set[str]:
        """Return the names in a folder that are outputs made from inputs in `within` or deeper.

        Args:
            folder: real path of the folder that is being looked through.
            within: real path of the folder that the search began in.
        """
        with self._lock, telling(self.path):
            return made_in(self._base, self._root or "", folder, within=within)

    @contextlib.contextmanager
    def planning(self) -> Iterator[sqlite3.Connection]:
        """Give the database, with its lock, for one transaction; an exception undoes all of it.

        Raises:
            ManifestError: it cannot be kept.
        """
        with self._lock, telling(self.path):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:  # a full disk has ended it already
                    self._base.execute("ROLLBACK")
                self._ids.clear()
                self._shown.clear()
                raise


def made_in(base: sqlite3.Connection, root: str, folder: str, *, within: str) -> set[str]:
    """Return the names in a folder that a manifest's database knows as outputs; see `Manifest.made_in`.

    Args:
        base: the database.
        root: real path of the manifest's own folder.
        folder: real path of the folder that is being looked through.
        within: real path of the folder that the search began in.
    """
    inside = folder == root or folder.startswith(root + os.sep)
    place = os.path.relpath(folder, root) if root and inside else folder
    rows = base.execute(
        "SELECT target_name, path FROM jobs JOIN folders ON folders.id = source_folder "
        "WHERE target_folder = (SELECT id FROM folders WHERE path = ?) AND state IN (?, ?)",
        (stored(place), State.READY, State.DONE),
    )
    begin = within.rstrip(os.sep) + os.sep
    origins: dict[bytes | str, bool] = {}
    names = set()
    for name, origin in rows:
        if origin not in origins:
            place = os.path.normpath(os.path.join(root, named(origin)))  # noqa: PTH118
            origins[origin] = (place.rstrip(os.sep) + os.sep).startswith(begin)
        if origins[origin]:
            names.add(named(name))
    return names


def _told(value: object) -> str:
    return "by default" if value is None else str(value)
