"""From wishes to jobs: what is new, what is done already, and what would do damage.

Wishes are taken one by one, so a million of them are planned in little memory; clashes between
them are found by the database. All of a plan is written down or nothing.
"""

# A million Path objects are slow to make.
# ruff: noqa: PTH114, PTH116, PTH122

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from relume.infer.batch.database import ManifestError, named, stored
from relume.infer.batch.manifest import Manifest
from relume.infer.batch.outputs import recover
from relume.infer.batch.records import State
from relume.infer.batch.stages import Job

Refuse = Callable[[str, str], None]
"""Told the source that cannot be done, and the line that says why."""


class Wish(NamedTuple):
    """One input and where its output is to go.

    Attributes:
        source, target: paths as the user has named them.
        size, mtime_ns: of the input, None where it cannot be looked at.
        search: number of the folder search that found it, None when it was named itself. What is
            the output of another input of the same search is passed over without a word.
    """

    source: str
    target: str
    size: int | None = None
    mtime_ns: int | None = None
    search: int | None = None


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a plan comes to.

    Attributes:
        done: pictures that were done (or found to need nothing) in an earlier run.
        refused: pictures that cannot be done, each with its line told.
        left: by ending in lower case (".jpg"): how many are left to do, and the bytes of their inputs.
    """

    done: int
    refused: int
    left: dict[str, tuple[int, int]]


def plan(
    manifest: Manifest,
    wishes: Iterable[Wish],
    *,
    overwrite: bool = False,
    refuse: Refuse | None = None,
    looked: Callable[[int], None] | None = None,
) -> Planned:
    """Put right what a killed run left, and enter what is wished; `manifest.left()` gives it then.

    What was done with the same settings and whose input has not changed since is not done again while
    its output is there. What failed is tried again. A changed input is, and its output is replaced if
    nobody else has touched it.

    Args:
        manifest: where to enter it.
        wishes: one for each picture, each looked at once, in order.
        overwrite: whether files that are in the way and none of this batch's may be replaced.
        refuse: told of each input that cannot be done.
        looked: told now and then how many were looked at.

    Raises:
        ManifestError: outputs of other settings are in the way, or the manifest cannot be kept.
    """
    recover(manifest)
    with manifest.planning() as base:
        base.execute("DELETE FROM jobs WHERE target_folder IS NULL")
        base.execute("UPDATE runs SET used = 1 + (SELECT max(used) FROM runs) WHERE id = ?", (manifest.run,))
        base.execute("DELETE FROM asked")
        base.execute("DELETE FROM links")
        planner = _Planner(manifest, base, overwrite=overwrite, refuse=refuse or _say_nothing)
        for count, wish in enumerate(wishes, 1):
            planner.ask(wish)
            if looked is not None and count % 1000 == 0:
                looked(count)
        planner.check()
        return planner.summary()


def add(
    manifest: Manifest, wish: Wish, *, overwrite: bool = False, refuse: Refuse | None = None
) -> Job | None:
    """Enter one picture that has come while the batch runs.

    Returns:
        The job, or None: refused, done already, or still under way as it was before.
    """
    with manifest.planning() as base:
        planner = _Planner(manifest, base, overwrite=overwrite, refuse=refuse or _say_nothing)
        number = planner.ask(wish)
        if (foreign := planner.foreign()) is not None:
            planner.refuse(wish, foreign)
        if number is None:
            return None
        planner.check(number)
        row = base.execute("SELECT state, target_folder FROM jobs WHERE id = ?", (number,)).fetchone()
    if row is None or row[0] != State.PLANNED:
        return None
    return manifest.job(number)


def settled(manifest: Manifest, wish: Wish) -> bool:
    """Tell whether this very input needs no more looking at: done once, or asked for in this run.

    Unlike `plan`, this asks nothing of the output: who watches a folder may take its outputs away.
    """
    with manifest.planning() as base:
        place = os.path.split(wish.source)
        row = base.execute(
            "SELECT count(*) FROM jobs WHERE source_folder = ? AND source_name = ? AND size = ? "
            "AND mtime_ns = ? AND run = ? AND (state IN (?, ?) OR id IN (SELECT id FROM asked))",
            (manifest.folder(place[0]), stored(place[1]), wish.size, wish.mtime_ns, manifest.run,
             State.DONE, State.SKIPPED),
        ).fetchone()  # fmt: skip
        return bool(row[0])


def again(manifest: Manifest) -> Iterator[Wish]:
    """Yield every picture of the manifest's work as a wish, for resuming without naming any."""
    last = 0
    while jobs := manifest.jobs_after(last):
        for job in jobs:
            yield wish_for(job.source, job.target)
        last = jobs[-1].id


def wish_for(source: Path, target: Path) -> Wish:
    """Return a wish for an input that is named itself, with what the system tells of it."""
    there = _look(str(source))
    size, mtime_ns = there or (None, None)
    return Wish(str(source), str(target), size, mtime_ns)


class _Planner:
    """Enters wishes in one transaction."""

    def __init__(
        self, manifest: Manifest, base: sqlite3.Connection, *, overwrite: bool, refuse: Refuse
    ) -> None:
        self._manifest = manifest
        self._base = base
        self._overwrite = overwrite
        self._refuse = refuse
        self._foreign = 0
        self._first_foreign: tuple[str, int] | None = None

    def ask(self, wish: Wish) -> int | None:
        """Enter one wish; its number, unless it is refused at once."""
        source_folder, source_name = self._key(wish.source)
        if os.path.islink(wish.source):
            original = self._key(os.path.realpath(wish.source))
            self._base.execute("INSERT OR IGNORE INTO links VALUES (?, ?)", original)
        target = os.path.realpath(wish.target) if os.path.islink(wish.target) else wish.target
        target_folder, target_name = self._key(target)
        row = self._base.execute(
            "SELECT id, run, source_folder, source_name, state, size, mtime_ns, made_size, made_mtime_ns, "
            "EXISTS (SELECT 1 FROM asked WHERE asked.id = jobs.id) "
            "FROM jobs WHERE target_folder = ? AND target_name = ?",
            (target_folder, target_name),
        ).fetchone()
        own = (source_folder, source_name)
        if row is None:
            number = self._base.execute(
                "INSERT INTO jobs (run, source_folder, source_name, size, mtime_ns, target_folder, "
                "target_name, replaceable, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (self._manifest.run, *own, wish.size, wish.mtime_ns, target_folder, target_name,
                 self._overwrite, State.PLANNED),
            ).lastrowid  # fmt: skip
        elif row[1] == self._manifest.run and self._same(row[2:4], own):
            number = row[0]
            self._again(row, wish, target)
        elif row[9]:
            other = self._manifest.path_of(row[2], row[3])
            self.refuse(wish, f"would be written to {wish.target}, as {other} is; rename one of them")
            return None
        elif row[4] == State.DONE and not self._overwrite and _look(target):
            if row[1] == self._manifest.run:
                other = self._manifest.path_of(row[2], row[3])
                line = f"would be written to {wish.target}, which was made from {other}; rename one of them"
                self.refuse(wish, line)
            else:
                self._foreign += 1
                self._first_foreign = self._first_foreign or (wish.target, row[1])
            return None
        else:
            number = row[0]
            self._take_over(number, own, wish)
        self._base.execute("INSERT OR IGNORE INTO asked VALUES (?, ?)", (number, wish.search))
        return number

    def _key(self, path: str) -> tuple[int, bytes | str]:
        folder, name = os.path.split(path)
        return self._manifest.folder(folder), stored(name)

    @staticmethod
    def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
        return one[0] == other[0] and os.path.normcase(named(one[1])) == os.path.normcase(named(other[1]))

    def _again(self, row: tuple[Any, ...], wish: Wish, target: str) -> None:
        """Decide about a job that is known: keep its end, or do it anew."""
        number, _, _, _, state, size, mtime_ns, made_size, made_mtime_ns, asked = row
        if (asked and state == State.PLANNED) or state in (State.STARTED, State.READY):
            return
        changed = wish.size is not None and (wish.size, wish.mtime_ns) != (size, mtime_ns)
        there = _look(target)
        untouched = made_size is not None and there == (made_size, made_mtime_ns)
        if state == State.DONE and there and not changed and (untouched or not self._overwrite):
            return
        if state == State.SKIPPED and not changed and not self._overwrite:
            return
        self._base.execute(
            "UPDATE jobs SET state = ?, size = ?, mtime_ns = ?, replaceable = ?, reason = NULL WHERE id = ?",
            (State.PLANNED, wish.size, wish.mtime_ns, self._overwrite or untouched, number),
        )

    def _take_over(self, number: int, own: tuple[int, bytes | str], wish: Wish) -> None:
        """Give a target that belonged to another input or to other settings to this wish."""
        self._base.execute(
            "UPDATE jobs SET run = ?, source_folder = ?, source_name = ?, size = ?, mtime_ns = ?, state = ?, "
            "replaceable = ?, made_size = NULL, made_mtime_ns = NULL, made_sha256 = NULL, reason = NULL "
            "WHERE id = ?",
            (self._manifest.run, *own, wish.size, wish.mtime_ns, State.PLANNED, self._overwrite, number),
        )

    def refuse(self, wish: Wish, line: str) -> None:
        """Enter that a wish cannot be a job, and tell why."""
        line = f"{wish.source}: {line}"
        number = self._base.execute(
            "INSERT INTO jobs (run, source_folder, source_name, state, reason) VALUES (?, ?, ?, ?, ?)",
            (self._manifest.run, *self._key(wish.source), State.FAILED, line),
        ).lastrowid
        self._base.execute("INSERT INTO asked VALUES (?, ?)", (number, None))
        self._refuse(wish.source, line)

    def check(self, number: int | None = None) -> None:
        """Find the clashes between all that is asked; or those of one job with the others.

        Raises:
            ManifestError: outputs of other settings are in the way.
        """
        if (line := self.foreign()) is not None:
            raise ManifestError(line)
        self._pass_over_outputs(number)
        self._refuse_dangers(number)

    def foreign(self) -> str | None:
        """Say which outputs of other settings are in the way, if any are."""
        if self._first_foreign is None:
            return None
        target, run = self._first_foreign
        others = f" and {self._foreign - 1} more" if self._foreign > 1 else ""
        return (
            f"{target}{others}: made earlier with other settings ({self._manifest.differences(run)}); "
            "choose another folder or suffix, or replace them with --overwrite"
        )

    def _pass_over_outputs(self, number: int | None) -> None:
        """Leave out what a search found and is what another of its finds becomes.

        The manifest knows the outputs of earlier runs; this is for those made without one.
        """
        one = "" if number is None else "AND own.id = :number"
        self._base.execute("DELETE FROM passed")
        self._base.execute(
            "INSERT OR IGNORE INTO passed SELECT own.id FROM asked AS mark "
            "JOIN jobs AS own ON own.id = mark.id JOIN jobs AS other "
            "ON other.target_folder = own.source_folder AND other.target_name = own.source_name "
            "JOIN asked AS other_mark ON other_mark.id = other.id "
            f"WHERE mark.search IS NOT NULL AND other_mark.search = mark.search AND other.id != own.id {one}",
            {"number": number},
        )
        self._base.execute("DELETE FROM jobs WHERE id IN (SELECT id FROM passed) AND made_size IS NULL")
        self._base.execute("DELETE FROM asked WHERE id IN (SELECT id FROM passed)")

    def _refuse_dangers(self, number: int | None) -> None:
        """Refuse what would be written over an input."""
        one = "" if number is None else "AND own.id = :number"
        found = self._base.execute(
            "SELECT own.id, own.source_folder, own.source_name, own.target_folder, own.target_name "
            "FROM asked JOIN jobs AS own ON own.id = asked.id WHERE (EXISTS ("
            "SELECT 1 FROM jobs AS other WHERE other.source_folder = own.target_folder "
            "AND other.source_name = own.target_name AND other.id IN (SELECT id FROM asked)) "
            "OR EXISTS (SELECT 1 FROM links WHERE links.folder = own.target_folder "
            f"AND links.name = own.target_name)) {one}",
            {"number": number},
        ).fetchall()
        for each, source_folder, source_name, target_folder, target_name in found:
            source = self._manifest.path_of(source_folder, source_name)
            line = (
                f"{source}: would be written to {self._manifest.path_of(target_folder, target_name)}, "
                "which is an input and would be lost; choose another -o or --suffix"
            )
            self._base.execute(
                "UPDATE jobs SET target_folder = NULL, target_name = NULL, state = ?, reason = ? "
                "WHERE id = ?",
                (State.FAILED, line, each),
            )
            self._refuse(str(source), line)

    def summary(self) -> Planned:
        """Count what was asked."""
        self._base.create_function("ending", 1, _ending, deterministic=True)
        left = {
            ending: (count, size or 0)
            for ending, count, size in self._base.execute(
                "SELECT ending(source_name), count(*), sum(size) FROM jobs "
                "WHERE state = ? AND id IN (SELECT id FROM asked) GROUP BY 1",
                (State.PLANNED,),
            )
        }
        done, refused = self._base.execute(
            "SELECT count(CASE WHEN state IN (?, ?) AND id IN (SELECT id FROM asked) THEN 1 END), "
            "count(CASE WHEN target_folder IS NULL THEN 1 END) FROM jobs",
            (State.DONE, State.SKIPPED),
        ).fetchone()
        return Planned(done=done, refused=refused, left=left)


def _ending(name: bytes | str) -> str:
    return os.path.splitext(named(name))[1].lower()


def _look(path: str) -> tuple[int, int] | None:
    """Return size and time of change of what lies there, None where nothing can be seen."""
    try:
        there = os.stat(path)
    except (OSError, ValueError):
        return None
    return there.st_size, there.st_mtime_ns


def _say_nothing(_source: str, _line: str) -> None:
    pass
