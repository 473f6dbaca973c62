"""A watched folder: pictures are taken once they are whole, and once only."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from batching import Copy, Heard, batch, outputs, wishes

from relume.infer.batch.inputs import Finder
from relume.infer.batch.manifest import FILE_NAME, Manifest
from relume.infer.batch.pipeline import run
from relume.infer.batch.planning import plan
from relume.infer.batch.stages import Job, Outcome, Tally
from relume.infer.batch.watch import arrivals


class Watching(Heard):
    """A watch over `in` in a thread of its own, until its block ends."""

    def __init__(self, folder: Path, *, beside: bool = False) -> None:
        super().__init__()
        self.place = folder / "in"
        self.output = None if beside else folder / "out"
        self.manifest_path = (self.output or self.place) / FILE_NAME
        self.stop = threading.Event()
        self.all_ends: list[str] = []
        self.tally: Tally | None = None
        self.lines: list[str] = []

    def ended(self, job: Job, outcome: Outcome) -> None:
        super().ended(job, outcome)
        self.all_ends.append(job.source.name)

    def __enter__(self) -> Watching:
        self.place.mkdir(exist_ok=True)
        self.manifest_path.parent.mkdir(exist_ok=True)
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()

    def _watch(self) -> None:
        with Manifest.open(self.manifest_path, {}) as manifest:
            finder = Finder((".png",), deep=False, manifest=manifest, tell=self.lines.append)
            suffix = "" if self.output else "_x2"

            def look():
                return wishes(finder, [self.place], self.output, suffix)

            plan(manifest, [])
            coming = arrivals(
                manifest, look, stop=self.stop, refuse=lambda _, line: self.lines.append(line),
                interval=0.02, settle=0.15,
            )  # fmt: skip
            self.tally = run(manifest, Copy(), listener=self, jobs=coming, memory=1 << 20, stop=self.stop)

    def wait(self, *names: str) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if all(name in self.ends for name in names):
                return
            time.sleep(0.02)
        pytest.fail(f"did not end: {set(names) - self.ends.keys()}")


def test_what_comes_is_done_once_and_a_restart_does_not_redo_it(tmp_path):
    with Watching(tmp_path) as watch:
        (watch.place / "a.png").write_text("a")
        watch.wait("a.png")
        (watch.place / "b.png").write_text("b")
        (watch.place / "notes.txt").write_text("no picture")
        watch.wait("b.png")
        time.sleep(0.3)
    assert watch.all_ends == ["a.png", "b.png"]
    assert watch.tally is not None
    assert watch.tally.stopped
    assert outputs(tmp_path / "out") == {"a.png": b"a!", "b.png": b"b!"}
    # Outputs may be taken away by whoever uses them.
    (tmp_path / "out" / "a.png").unlink()
    with Watching(tmp_path) as watch:
        (watch.place / "b.png").write_text("b, changed")
        watch.wait("b.png")
        time.sleep(0.3)
    assert watch.all_ends == ["b.png"]
    assert outputs(tmp_path / "out") == {"b.png": b"b, changed!"}


def test_a_file_that_still_grows_is_waited_for(tmp_path):
    with Watching(tmp_path) as watch, (watch.place / "a.png").open("w") as file:
        for _ in range(20):
            file.write("piece ")
            file.flush()
            time.sleep(0.05)
        assert watch.ends == {}
        file.close()
        watch.wait("a.png")
    assert outputs(tmp_path / "out") == {"a.png": b"piece " * 20 + b"!"}
    assert watch.all_ends == ["a.png"]


def test_a_copy_that_halts_fails_and_is_done_when_it_is_whole(tmp_path):
    with Watching(tmp_path) as watch:
        (watch.place / "a.png").write_text("bad")
        watch.wait("a.png")
        assert watch.ends.pop("a.png").status == "failed"
        time.sleep(0.3)
        assert watch.ends == {}  # and is not tried again and again
        (watch.place / "a.png").write_text("good")
        watch.wait("a.png")
    assert outputs(tmp_path / "out") == {"a.png": b"good!"}


def test_files_that_vanish_and_folders_too_do_no_harm(tmp_path):
    with Watching(tmp_path) as watch:
        for number in range(40):
            (watch.place / f"{number}.png").write_text("x")
        for number in range(0, 40, 2):
            (watch.place / f"{number}.png").unlink()
        watch.place.rename(tmp_path / "away")
        time.sleep(0.3)
        (tmp_path / "away").rename(watch.place)
        watch.wait(*(f"{number}.png" for number in range(1, 40, 2)))
    assert set(outputs(tmp_path / "out")) == {f"{number}.png" for number in range(1, 40, 2)}


def test_what_cannot_be_done_is_told_once_and_stops_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("a")
    batch(tmp_path / "in", tmp_path / "out", stages=Copy(), scale=2)
    with Watching(tmp_path) as watch:
        time.sleep(0.4)
        (watch.place / "b.png").write_text("b")
        watch.wait("b.png")
        time.sleep(0.3)
    assert len(watch.lines) == 1
    assert "a.png: " in watch.lines[0]
    assert "made earlier with other settings (scale 2, now by default)" in watch.lines[0]
    assert watch.all_ends == ["b.png"]


def test_outputs_beside_their_inputs_are_not_watched(tmp_path):
    with Watching(tmp_path, beside=True) as watch:
        (watch.place / "a.png").write_text("a")
        watch.wait("a.png")
        time.sleep(0.5)
    assert watch.all_ends == ["a.png"]
    assert set(outputs(tmp_path / "in")) == {"a.png", "a_x2.png"}
    assert os.listdir(tmp_path) == ["in"]  # noqa: PTH208
