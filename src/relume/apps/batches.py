"""What `relume upscale` does once it knows what is wished: plan, work, tell."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from relume.apps.console import INTERRUPTED, progress_bar, say, say_note
from relume.apps.destinations import default_suffix, destinations, manifest_place
from relume.apps.reporting import Failures, Reporter, check_report, summary, write_report
from relume.apps.upscale_settings import UpscaleSettings, endings, own_scale
from relume.apps.work import Upscaler, shared_memory
from relume.core.errors import RelumeError
from relume.core.pictures import read_size
from relume.infer.batch import cluster, connection, pipeline
from relume.infer.batch.inputs import Finder, is_search
from relume.infer.batch.manifest import Manifest
from relume.infer.batch.planning import Planned, Wish, again, plan
from relume.infer.batch.stages import Job, Listener, Tally
from relume.infer.batch.watch import arrivals
from relume.infer.choosing import default_engine

Work = Callable[[Manifest, Listener, Iterable[Job] | None, threading.Event], Tally]
"""Does a manifest's jobs, those given or all that are left."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        settings: how pictures are enlarged.
        given: pictures, folders and patterns.
        output: file or folder; None for beside the inputs.
        suffix: of the outputs' names; None for what says the size, where they lie beside the inputs.
        format: of the outputs; None for each input's.
        overwrite: whether files in the way are replaced.
        recursive: whether folders in folders are looked through.
        watch: whether to wait for pictures that come.
        job: where the manifest is to lie; None chooses.
        report: where to write a table of the pictures.
        ray: address of a cluster to work on.
    """

    settings: UpscaleSettings
    given: tuple[Path, ...] = ()
    output: Path | None = None
    suffix: str | None = None
    format: str | None = None
    overwrite: bool = False
    recursive: bool = False
    watch: bool = False
    job: Path | None = None
    report: Path | None = None
    ray: str | None = None


def run(request: Request) -> int:
    """Enlarge what is asked for; gives the exit status.

    Raises:
        RelumeError: nothing of it can be done.
    """
    settings, given = request.settings, request.given
    _check(request)
    searches = any(map(is_search, given))
    several = searches or len(given) > 1
    suffix = request.suffix
    # What says that a request makes no sense, or a picture is none, comes before the model, which takes a
    # while.
    places = destinations(
        request.output, several=several, suffix=suffix or "", format=request.format
    )  # fmt: skip
    if not several:
        read_size(given[0], cubes=True)
    work = _work(settings, request.ray)
    if suffix is None and request.output is None:
        scale = own_scale(settings.model_name())
        places = replace(places, suffix=default_suffix(settings.target(), scale))
    folder = request.output if places.is_folder else None
    path = request.job or (manifest_place(given, folder) if several else None)
    kept = settings.kept(suffix=places.suffix, format=request.format)
    with _made(folder), Manifest.open(path, kept) as manifest:
        batch = _Batch(request, manifest, work, Failures(at_once=request.watch or not several))
        finder = Finder(
            endings(settings.model_name()) if searches else (), deep=request.recursive, manifest=manifest,
            tell=batch.refused, expectant=request.watch,
        )  # fmt: skip

        def look() -> Iterator[Wish]:
            return places.wishes(finder.find(given))

        return batch.watch(look) if request.watch else batch.run(look())


def go_on(path: Path, request: Request) -> int:
    """Do what is left of a batch; gives the exit status.

    Args:
        path: the batch's manifest.
        request: how it is to be done; what is to be done is in the manifest.

    Raises:
        RelumeError: nothing of it can be done.
    """
    _check(request)
    with Manifest.resume(path) as manifest:
        settings = UpscaleSettings.from_kept(manifest.settings, where=str(path), how_made=request.settings)
        batch = _Batch(request, manifest, _work(settings, request.ray), Failures(at_once=False))
        return batch.run(again(manifest))


def _check(request: Request) -> None:
    if request.report is not None:
        check_report(request.report)
    if request.watch and (single := [path for path in request.given if not is_search(path)]):
        raise RelumeError(f"--watch waits for pictures in folders, and {single[0]} is none; name a folder")


def _work(settings: UpscaleSettings, ray: str | None) -> Work:
    """Return what does the work: the model loaded here, or on a cluster's workers."""
    if ray is None:
        upscaler = Upscaler(settings, say=say_note)

        def work_here(
            manifest: Manifest, listener: Listener, jobs: Iterable[Job] | None, stop: threading.Event
        ) -> Tally:
            return pipeline.run(
                manifest, upscaler, listener=listener, jobs=jobs, memory=upscaler.budget, stop=stop
            )

        return work_here
    connection.check_reachable(ray)
    # Workers have another current folder and another environment.
    distant = settings.model_copy(
        update={"model": settings.model_name(), "engine": settings.engine or default_engine()}
    )
    budget = shared_memory(settings.memory)[1] // 2

    def work_there(
        manifest: Manifest, listener: Listener, jobs: Iterable[Job] | None, stop: threading.Event
    ) -> Tally:
        return cluster.run(
            manifest, partial(Upscaler, distant), address=ray, listener=listener, jobs=jobs, memory=budget,
            cpus=settings.threads, stop=stop, tell=say_note,
        )  # fmt: skip

    return work_there


class _Batch:
    """One run of the command over an open manifest."""

    def __init__(self, request: Request, manifest: Manifest, work: Work, failures: Failures) -> None:
        self._request = request
        self._manifest = manifest
        self._work = work
        self._failures = failures
        self._refused: set[str] = set()

    def refused(self, line: str) -> None:
        """Hear of what cannot be done at all; a watch looks again and again, and tells it once."""
        if line not in self._refused:
            self._refused.add(line)
            self._failures.add(line)

    def run(self, wishes: Iterable[Wish]) -> int:
        """Plan and do what is wished."""
        with progress_bar() as bar:
            looking = bar.add_task("looking for pictures", total=None)
            planned = plan(
                self._manifest, wishes, overwrite=self._request.overwrite,
                refuse=lambda _, line: self._failures.add(line),
                looked=lambda count: bar.update(looking, description=f"looking for pictures: {count}"),
            )  # fmt: skip
        tally = Tally()
        if planned.left:
            with Reporter(planned, self._failures) as reporter:
                tally = self._work(self._manifest, reporter, None, threading.Event())
        self._tell(tally, planned)
        if tally.stopped:
            return INTERRUPTED
        return 1 if self._failures.count else 0

    def watch(self, look: Callable[[], Iterable[Wish]]) -> int:
        """Do what comes until the user has enough, which is no interruption."""
        planned = plan(self._manifest, [])
        stop = threading.Event()
        jobs = arrivals(
            self._manifest, look, stop=stop, overwrite=self._request.overwrite,
            refuse=lambda _, line: self.refused(line),
        )  # fmt: skip
        say_note(f"waiting for pictures in {', '.join(map(str, self._request.given))}; Ctrl-C ends it")
        with Reporter(None, self._failures) as reporter:
            tally = self._work(self._manifest, reporter, jobs, stop)
        self._tell(replace(tally, stopped=False), planned)
        return 1 if self._failures.count else 0

    def _tell(self, tally: Tally, planned: Planned) -> None:
        path = self._manifest.path
        # Without an output or work left, the manifest goes.
        stays = path is not None and (tally.done or tally.skipped or planned.done or tally.stopped)
        where = f"relume jobs {path}" if stays else "--report FILE.csv"
        self._failures.tell(f"all of them: {where}")
        if tally.done + tally.skipped + planned.done + self._failures.count > 1 or self._request.watch:
            say(summary(tally, failed=self._failures.count, before=planned.done))
        if self._request.report is not None:
            write_report(self._manifest.records(), self._request.report)
        if tally.stopped and path is not None:
            say_note(
                "stopped; the same command goes on with what is left, and so does: "
                f"relume upscale --resume {path}"
            )
        elif tally.stopped:
            say_note("stopped")


@contextlib.contextmanager
def _made(folder: Path | None) -> Iterator[None]:
    """Make a folder for the time of the work, and take it away again where nothing came into it."""
    if folder is None or os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir fails on a name too long
        yield
        return
    try:
        folder.mkdir()
    except OSError as error:
        raise RelumeError(f"cannot make the folder {folder}: {error.strerror}; choose another -o") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
