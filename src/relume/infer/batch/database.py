"""The file under a manifest: SQLite, held by one process at a time.

SQLite rather than lines of JSON: a million pictures are resumed by asking an index, not by reading
the past into memory; a kill at any moment loses at most the transaction under way, which is undone
when the file is next opened; and no line can be torn. Its write-ahead log, with the lock held as
long as the file is open, also works on network disks, where several clients could not share one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from relume.core.errors import RelumeError

_APPLICATION = 0x52454C55  # "RELU", so that `file` and we tell it from other databases
_VERSION = 1

# File names are bytes on POSIX. On Windows they are text in which case does not count.
NAME = "TEXT COLLATE NOCASE" if os.name == "nt" else "BLOB"
"""SQL type of a path or file name."""

_SCHEMA = f"""
CREATE TABLE book (token TEXT NOT NULL);
CREATE TABLE runs (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, settings TEXT NOT NULL,
    used INTEGER NOT NULL);
CREATE TABLE folders (id INTEGER PRIMARY KEY, path {NAME} NOT NULL UNIQUE);
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL,
    source_folder INTEGER NOT NULL, source_name {NAME} NOT NULL, size INTEGER, mtime_ns INTEGER,
    target_folder INTEGER, target_name {NAME}, replaceable INTEGER NOT NULL DEFAULT 0,
    state INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
    made_size INTEGER, made_mtime_ns INTEGER, made_sha256 BLOB,
    reason TEXT, seconds REAL, pixels INTEGER, facts TEXT);
CREATE TABLE litter (job INTEGER NOT NULL, attempt INTEGER NOT NULL);
CREATE UNIQUE INDEX jobs_by_target ON jobs (target_folder, target_name);
CREATE INDEX jobs_by_source ON jobs (source_folder, source_name);
CREATE INDEX jobs_under_way ON jobs (id) WHERE state IN (1, 2);
"""


class ManifestError(RelumeError):
    """The manifest cannot be kept, so the batch cannot go on."""


def stored(name: str) -> bytes | str:
    """Return a path or name as the database keeps it."""
    return name if os.name == "nt" else os.fsencode(name)


def named(value: bytes | str) -> str:
    """Return the path or name that `stored` was given."""
    return os.fsdecode(value)


def connect(path: Path | None, *, token: str) -> sqlite3.Connection:
    """Open a manifest's file, or make it, and lock out every other process until it is closed.

    Args:
        path: the file; None keeps everything in memory.
        token: what a new file is to be known by.

    Raises:
        ManifestError: it is in use, no manifest of ours, or cannot be made.
    """
    with telling(path):
        base = sqlite3.connect(
            ":memory:" if path is None else path, isolation_level=None, check_same_thread=False, timeout=0
        )
        try:
            # Asked for before the log: then no memory is shared with others, which network disks lack.
            base.execute("PRAGMA locking_mode = EXCLUSIVE")
            if path is not None:
                _check_ours(base, path)
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = FULL")
            base.execute("PRAGMA cache_size = -32768")  # KiB: the indexes of a million pictures
            base.execute("BEGIN EXCLUSIVE")
            if base.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";"):
                    base.execute(statement)
                base.execute(f"PRAGMA application_id = {_APPLICATION}")
                base.execute(f"PRAGMA user_version = {_VERSION}")
                base.execute("INSERT INTO book VALUES (?)", (token,))
            base.execute("COMMIT")
        except BaseException:
            base.close()
            raise
    return base


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open another batch's manifest for questions only.

    Raises:
        ManifestError: it is in use, no manifest of ours, or cannot be read.
    """
    with telling(path):
        # Not mode=ro: what a killed process left in the log has to be taken in first.
        base = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)
        try:
            base.execute("PRAGMA query_only = ON")
            _check_ours(base, path)
        except BaseException:
            base.close()
            raise
    return base


def _check_ours(base: sqlite3.Connection, path: Path) -> None:
    application = base.execute("PRAGMA application_id").fetchone()[0]
    version = base.execute("PRAGMA user_version").fetchone()[0]
    empty = base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if application != _APPLICATION and not empty:
        raise ManifestError(f"{path}: this is a database of another program; choose another manifest")
    if version > _VERSION:
        raise ManifestError(f"{path}: this manifest was made by a newer relume; install that one")


@contextlib.contextmanager
def telling(path: Path | None) -> Iterator[None]:
    """Turn what SQLite says into one line about the manifest at `path`.

    Raises:
        ManifestError: as said.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what extends it
        shown = path or "the list of pictures"
        if code == sqlite3.SQLITE_BUSY:
            line = "another relume is at work on this batch; wait for it or stop it"
        elif code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            line = "this is no manifest, or a damaged one; move it away and run the command again"
        elif code == sqlite3.SQLITE_FULL:
            line = "the manifest cannot be kept: the disk is full; free some space and run the command again"
        elif code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            line = "the manifest cannot be made or written here; check the folder, or name another place"
        elif code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL):
            line = f"the manifest cannot be kept on this disk ({error}); name another place for it"
        else:
            raise
        raise ManifestError(f"{shown}: {line}") from None
