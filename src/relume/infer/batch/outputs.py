"""Give outputs their names in one step, and put right what a killed process left.

Each attempt at a job writes into a hidden folder of its own beside the target,
`.relume-TOKEN-JOB-ATTEMPT.part`; the token is the manifest's. So whatever writes there, be it a process
that was thought dead, never touches what a later attempt writes; and what is left behind is known
by name, not searched for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import threading
from dataclasses import replace
from pathlib import Path

from relume.core.errors import RelumeError
from relume.core.files import check_target, reason, take_free_name
from relume.infer.batch.manifest import Manifest
from relume.infer.batch.records import Seal, State
from relume.infer.batch.stages import Job, Outcome


class Outputs:
    """The way of outputs to their names, for one run of a batch; any thread may use it."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._lock = threading.Lock()
        self._made: list[Path] = []

    def prepare(self, job: Job) -> tuple[Job, Path]:
        """Take up a job: check its target, write the attempt down, and make its hidden folder.

        Returns:
            The job with the number of this attempt, and the path that its output is to be written to.

        Raises:
            OutputExistsError: the target is there and may not be replaced.
            RelumeError: the target cannot be written.
        """
        self._make(job)
        check_target(job.target, overwrite=job.replace)
        job = self._manifest.started(job)
        hidden = _hidden(self._manifest, job)
        try:
            _remove(hidden.parent)
            hidden.parent.mkdir()
        except OSError as error:
            raise RelumeError(f"{job.target}: cannot be written: {reason(error)}") from None
        return replace(job, scratch=hidden.parent), hidden

    def commit(self, job: Job, hidden: Path, sealed: Seal, outcome: Outcome) -> None:
        """Give a whole output its name; killed in the middle, `recover` ends it.

        Raises:
            OutputExistsError: something has taken the name meanwhile and may not be replaced.
            RelumeError: it cannot be given the name.
        """
        self._manifest.ready(job, sealed, outcome)
        target = Path(os.path.realpath(job.target))
        try:
            if job.replace:
                with contextlib.suppress(OSError):
                    hidden.chmod(stat.S_IMODE(target.stat().st_mode))
                hidden.replace(target)
            else:
                take_free_name(hidden, target, job.target)
        except OSError as error:
            raise RelumeError(f"{job.target}: cannot be written: {reason(error)}") from None
        self.drop(job)
        self._manifest.done(job)

    def drop(self, job: Job) -> None:
        """Remove the hidden folder of an attempt with what is in it."""
        _clear(self._manifest, job)

    def tidy(self) -> None:
        """Remove what could not be removed at once, and folders made for outputs that did not come."""
        _sweep(self._manifest)
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._made.clear()

    def _make(self, job: Job) -> None:
        folder = job.target.parent
        with self._lock:
            missing = []
            while not os.path.lexists(folder):
                missing.append(folder)
                folder = folder.parent
            for each in reversed(missing):
                try:
                    each.mkdir(exist_ok=True)
                except OSError as error:
                    raise RelumeError(
                        f"{job.target}: the folder {each} cannot be made: {reason(error)}"
                    ) from None
                self._made.append(each)


def recover(manifest: Manifest) -> None:
    """Put right what a killed process left: whole outputs get their names, halves are removed."""
    _sweep(manifest)
    for job, state, sealed in manifest.under_way():
        hidden = _hidden(manifest, job)
        complete = state == State.READY and sealed is not None and _complete(job, hidden, sealed)
        # Before anything is written down: killed here, the next run must still know of the folder.
        _clear(manifest, job)
        if complete:
            manifest.done(job)
        else:
            manifest.put_back(job)


def seal(hidden: Path) -> Seal:
    """Put a whole output out to the disk and return by what it is recognised.

    Raises:
        OSError: it is not there or cannot be read back.
    """
    with hidden.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        os.fsync(file.fileno())
        there = os.fstat(file.fileno())
    return Seal(size=there.st_size, mtime_ns=there.st_mtime_ns, sha256=digest)


def _complete(job: Job, hidden: Path, sealed: Seal) -> bool:
    """Tell whether an output has its name, and give it where only that was missing."""
    try:
        if os.path.lexists(job.target):
            return _digest(job.target) == sealed.sha256
        if _digest(hidden) != sealed.sha256:
            return False
        take_free_name(hidden, Path(os.path.realpath(job.target)), job.target)
    except (OSError, RelumeError):
        # Not there, not readable, or overtaken: then it is simply to be done.
        return False
    return True


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _hidden(manifest: Manifest, job: Job) -> Path:
    """Return where an attempt writes: beside the target (a link's own target), under the target's name."""
    target = Path(os.path.realpath(job.target))
    return target.parent / f".relume-{manifest.token}-{job.id}-{job.attempt}.part" / target.name


def _clear(manifest: Manifest, job: Job) -> None:
    """Remove an attempt's hidden folder, now or when the batch ends."""
    try:
        _remove(_hidden(manifest, job).parent)
    except OSError:
        # A worker that was thought dead may be writing into it at this very moment.
        manifest.littered(job.id, job.attempt)


def _sweep(manifest: Manifest) -> None:
    for job in manifest.litter():
        with contextlib.suppress(OSError):
            _remove(_hidden(manifest, job).parent)
            manifest.swept(job.id, job.attempt)


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
