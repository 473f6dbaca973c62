"""A whole preparation: find the photos, look at each, judge, cut, and write the index.

It can be killed at any moment: what is done stands in a journal, and the same call goes on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from relume.core.errors import DataError, PictureError, RelumeError
from relume.core.files import reason
from relume.core.pictures import SUFFIXES
from relume.data.preparation.cutting import starts
from relume.data.preparation.judging import PreparationConfig, judge
from relume.data.preparation.pool import Workers
from relume.data.preparation.records import INDEX, JOURNAL, PIECES, Cut, Journal, Photo, rows, write_index
from relume.data.preparation.working import Job, cut, examine

_CUT_SETTINGS = {"side", "overlap", "form", "sharpness"}


class Listener(Protocol):
    """Is told how far a preparation is."""

    def begun(self, what: str, total: int) -> None:
        """A part of the work begins: "looking at" or "cutting" so many photos."""
        ...

    def done(self, source: str) -> None:
        """One photo of it is done."""
        ...


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies in a folder.

    Attributes:
        jobs: the files that are pictures by their names, in the order of names.
        unreadable: folders and files that could not be looked at, and why.
        others: how many other files there are, by ending.
    """

    jobs: list[Job]
    unreadable: list[Photo]
    others: Counter[str]


@dataclass(frozen=True)
class Prepared:
    """What a preparation came to.

    Attributes:
        rows: as of `records.rows`: one a photo, in the order of names.
        others: as of `Found`.
        withdrawn: photos that an earlier call cut, and whose pieces were removed.
    """

    rows: list[dict[str, Any]]
    others: Counter[str]
    withdrawn: int = 0


def prepare(
    folder: Path,
    output: Path | None,
    config: PreparationConfig,
    listener: Listener,
    *,
    held_back: Iterable[Path] = (),
    workers: int = 1,
) -> Prepared:
    """Look through a folder and cut what is good into pieces, or only look.

    Args:
        folder: photos, at any depth; links to folders are not followed.
        output: where pieces, index and journal go, made when missing; None only looks.
        config: what is taken, and how it is cut.
        listener: is told how far it is.
        held_back: folders of test sets, whose pictures must not be among the pieces.
        workers: processes that work; 1 works in this one.

    Raises:
        DataError: there is no picture, or the output holds something else, such as pieces of other photos.
        RelumeError: the output cannot be written.
    """
    starts(config.side, config.side, config.overlap)  # refuses an overlap that does not fit
    if output is not None:
        _refuse_nested(folder, output)
    found = _find(folder, leave_out=output)
    if not found.jobs and not found.unreadable:
        raise DataError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))})")
    with Workers(workers) as pool:
        work = _Work(config, listener, pool)
        others = [photo for other in held_back for photo in work.examine(_held_back(other))]
        if output is None:
            photos = work.examine(found)
            return Prepared(rows(photos, judge(photos, config, held_back=others), {}), found.others)
        try:
            (output / PIECES).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RelumeError(
                f"cannot make the folder {output}: {reason(error)}; choose another -o"
            ) from None
        settings = config.model_dump(mode="json", include=_CUT_SETTINGS)
        with Journal(output, settings) as journal:
            _refuse_others(found, journal, folder, output)
            _sweep(output)
            photos = work.examine(found, journal)
            reasons = judge(photos, config, held_back=others)
            withdrawn = _withdraw(journal, output, {photo.source: photo for photo in photos}, reasons)
            taken = {photo.source: photo for photo in photos if photo.source not in reasons}
            reasons |= work.cut(found, taken, journal, output)
            result = rows(photos, reasons, journal.cuts)
            write_index(output / INDEX, config.model_dump(mode="json"), result)
            return Prepared(result, found.others, withdrawn)


@dataclass(frozen=True)
class _Work:
    """The two parts of the work on many photos."""

    config: PreparationConfig
    listener: Listener
    pool: Workers

    def examine(self, found: Found, journal: Journal | None = None) -> list[Photo]:
        """Look at each photo that is not known as it is now; return all in the order of names.

        One that could not be used is looked at again: what was in the way may be gone, and its file the same.
        """
        photos = [*found.unreadable]
        todo = []
        for job in found.jobs:
            photo = journal.photos.get(job.source) if journal is not None else None
            known = photo is not None and (photo.bytes, photo.changed) == (job.bytes, job.changed)
            if photo is not None and known and photo.problem is None:
                photos.append(photo)
            else:
                todo.append((job, self.config))
        self.listener.begun("looking at", len(todo))
        for _, photo in self.pool.results(examine, todo):
            if journal is not None:
                journal.add(photo)
            photos.append(photo)
            self.listener.done(photo.source)
        return sorted(photos, key=lambda photo: photo.source)

    def cut(self, found: Found, taken: Mapping[str, Photo], journal: Journal, output: Path) -> dict[str, str]:
        """Cut each photo that is not cut yet; return why some gave no piece after all."""
        todo = [
            (job, taken[job.source], output, self.config)
            for job in found.jobs
            if job.source in taken and job.source not in journal.cuts
        ]
        reasons = {}
        self.listener.begun("cutting", len(todo))
        for (job, *_), outcome in self.pool.results(_cut_or_problem, todo):
            if isinstance(outcome, Cut):
                journal.add(outcome)
            else:
                reasons[job.source] = outcome
            self.listener.done(job.source)
        return reasons | {
            source: f"none of its pieces is sharp enough ({made.dropped} dropped)"
            for source, made in journal.cuts.items()
            if not made.files
        }


def count_pictures(folder: Path, *, leave_out: Path | None = None) -> int:
    """Return how many files of a folder are pictures by their names.

    Raises:
        DataError: it is no folder.
    """
    return len(_find(folder, leave_out=leave_out).jobs)


def _cut_or_problem(job: Job, photo: Photo, output: Path, config: PreparationConfig) -> Cut | str:
    """Cut a photo, or say what is wrong with it: it may have gone bad since it was looked at."""
    try:
        return cut(job, photo, output, config)
    except PictureError as error:
        where = f"{job.path}: "
        if str(error).startswith(where):
            return str(error).removeprefix(where)
        raise  # a piece cannot be written


def _refuse_nested(folder: Path, output: Path) -> None:
    source, target = folder.resolve(), output.resolve()
    if source == target or target in source.parents:
        raise DataError(f"{folder} lies in the output {output}; choose another -o")
    if target.exists() and not target.is_dir():
        raise DataError(f"{output} is a file; -o names a folder")
    if (target / PIECES).exists() and not (target / JOURNAL).exists():
        raise DataError(f"{output / PIECES} is there and from no preparation; choose another -o")


def _refuse_others(found: Found, journal: Journal, folder: Path, output: Path) -> None:
    """Refuse an output made of other photos alone: the pieces of all of them would be removed."""
    here = {job.source for job in found.jobs} | {photo.source for photo in found.unreadable}
    if journal.cuts and here.isdisjoint(journal.cuts):
        raise DataError(
            f"{output} holds pieces of other photos, of which none lies in {folder}; choose another -o, or "
            f"remove {output}"
        )


def _find(folder: Path, *, leave_out: Path | None) -> Found:
    """List a folder's pictures at any depth; what is hidden, or lies in the output, is left out.

    Raises:
        DataError: it is no folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name a folder of photos")
    jobs: list[Job] = []
    unreadable: list[Photo] = []
    others: Counter[str] = Counter()
    output = None if leave_out is None else leave_out.resolve()

    def refused(error: OSError) -> None:
        source = _below(folder, Path(error.filename))
        problem = f"the folder cannot be listed: {reason(error)}"
        unreadable.append(Photo(source=source, bytes=0, changed=0, problem=problem))

    for place, folders, files in os.walk(folder, onerror=refused):
        kept = []
        for name in folders:
            path = Path(place, name)
            if name.startswith(".") or path.resolve() == output:
                continue
            if path.is_symlink():
                others["links to folders"] += 1
            else:
                kept.append(name)
        folders[:] = sorted(kept)
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES:
                others[path.suffix.lower() or "without an ending"] += 1
                continue
            source = _below(folder, path)
            try:
                status = path.stat()
                jobs.append(
                    Job(folder=folder, source=source, bytes=status.st_size, changed=status.st_mtime_ns)
                )
            except OSError as error:
                problem = (
                    "a link that leads nowhere" if path.is_symlink() else f"cannot be read: {reason(error)}"
                )
                unreadable.append(Photo(source=source, bytes=0, changed=0, problem=problem))
    return Found(jobs=sorted(jobs, key=lambda job: job.source), unreadable=unreadable, others=others)


def _below(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _held_back(folder: Path) -> Found:
    """List the pictures of a test set.

    Raises:
        DataError: there is none.
    """
    found = _find(folder, leave_out=None)
    if not found.jobs:
        raise DataError(f"{folder} holds no picture to keep apart")
    return found


def _withdraw(journal: Journal, output: Path, photos: dict[str, Photo], reasons: dict[str, str]) -> int:
    """Remove the pieces of photos that are gone, have changed, or are no longer taken; return how many."""
    withdrawn = 0
    for source, made in list(journal.cuts.items()):
        photo = photos.get(source)
        files = [output / PIECES / name for name in made.files]
        stays = photo is not None and photo.sha256 == made.sha256 and source not in reasons
        if stays and all(path.is_file() for path in files):
            continue
        for path in files:
            path.unlink(missing_ok=True)
        _remove_empty((output / PIECES / source).parent, output / PIECES)
        journal.drop_cut(source)
        withdrawn += not stays
    return withdrawn


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder in which nothing is left, and those around it, up to `top`, which stays."""
    while folder != top and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _sweep(output: Path) -> None:
    """Remove what a killed run has left half written; nobody else is at work here, as the journal is ours."""
    for place in (output.glob, (output / PIECES).rglob):
        for path in place(".relume-*.part"):
            path.unlink(missing_ok=True)
