"""Stages overlap, one failure never stops the rest, memory is bounded, Ctrl-C leaves nothing half-done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from batching import Copy, Enlarge, Heard, batch, contents, outputs, picture, pictures, plan_folder

from relume.core.pictures import read
from relume.infer.batch.lanes import Widths
from relume.infer.batch.manifest import FILE_NAME, Manifest
from relume.infer.batch.pipeline import run
from relume.infer.batch.stages import Advance, Job, Load, Outcome, Tally


def run_folder(
    folder: Path, stages: object, *, memory: int = 1 << 28, **options: object
) -> tuple[Tally, Heard]:
    """Run `in` to `out` with a manifest in memory."""
    heard = Heard()
    with Manifest.open(None, {}) as manifest:
        plan_folder(manifest, [folder / "in"], folder / "out")
        return run(manifest, stages, listener=heard, memory=memory, **options), heard


def files(folder: Path, count: int) -> None:
    (folder / "in").mkdir()
    for number in range(count):
        (folder / "in" / f"{number:03}.png").write_text(f"{number}")


class Meeting(Copy):
    """Goes on only when a third picture is decoded, a second computed and a first encoded at one moment."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(3)
        self.calls = Counter[str]()

    def _meet(self, stage: str, number: int) -> None:
        self.calls[stage] += 1
        if self.calls[stage] == number:
            self.barrier.wait(timeout=20)

    def decode(self, job: Job) -> str:
        self._meet("decode", 3)
        return super().decode(job)

    def compute(self, decoded: str, advance: Advance) -> str:
        self._meet("compute", 2)
        return super().compute(decoded, advance)

    def encode(self, job: Job, computed: str, hidden: Path) -> Outcome:
        self._meet("encode", 1)
        return super().encode(job, computed, hidden)


def test_decoding_computing_and_encoding_overlap(tmp_path):
    files(tmp_path, 3)
    tally, heard = run_folder(tmp_path, Meeting(), widths=Widths(decode=1, encode=1))
    assert tally.done == 3, heard.ends


def test_one_failure_of_any_kind_never_stops_the_rest(tmp_path):
    files(tmp_path, 9)
    for number, text in ((2, "bad"), (4, "bug"), (6, "skip"), (7, "no output")):
        (tmp_path / "in" / f"00{number}.png").write_text(text)
    tally, heard = run_folder(tmp_path, Copy())
    assert (tally.done, tally.failed, tally.skipped, tally.stopped) == (5, 3, 1, False)
    assert heard.ends["002.png"].reason == f"{tmp_path}/in/002.png: is bad; mend it"
    bug = heard.ends["004.png"]
    assert bug.reason == f"{tmp_path}/in/004.png: unexpected KeyError: 'bug'; this is a bug, please report it"
    assert "in compute" in bug.trace
    # A stage that breaks its promise is a bug too, told by the name that the user knows.
    assert "unexpected FileNotFoundError" in heard.ends["007.png"].reason
    assert f"{tmp_path}/out/007.png" in heard.ends["007.png"].reason
    assert set(contents(tmp_path / "out")) == {f"00{number}.png" for number in (0, 1, 3, 5, 8)}


def test_a_failed_batch_leaves_no_folders_behind(tmp_path):
    files(tmp_path, 2)
    for path in (tmp_path / "in").iterdir():
        path.write_text("bad")
    run_folder(tmp_path, Copy())
    assert not (tmp_path / "out").exists()


@dataclass
class Weighed(Copy):
    """Notes how many bytes are held at once, as it says that its pictures weigh."""

    sizes: dict[str, int]
    held: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def weigh(self, job: Job) -> Load:
        size = self.sizes.get(job.source.name, 100)
        return Load(decoded=size, computed=4 * size)

    def _hold(self, size: int) -> None:
        with self.lock:
            self.held += size
            self.most = max(self.most, self.held)

    def decode(self, job: Job) -> str:
        self._hold(self.weigh(job).decoded)
        super().decode(job)
        time.sleep(0.002)
        return job.source.name

    def compute(self, decoded: str, advance: Advance) -> str:
        size = self.sizes.get(decoded, 100)
        self._hold(4 * size)
        time.sleep(0.002)
        self._hold(-size)
        return decoded

    def encode(self, job: Job, computed: str, hidden: Path) -> Outcome:
        time.sleep(0.005)
        outcome = super().encode(job, computed, hidden)
        self._hold(-self.weigh(job).computed)
        return outcome


@pytest.mark.parametrize(("budget", "most"), [(1_000_000, 10_000), (1_000, 1_000), (600, 600), (0, 500)])
def test_memory_is_bounded_and_no_picture_is_too_large(tmp_path, budget, most):
    files(tmp_path, 40)
    stages = Weighed(sizes={})
    tally, _ = run_folder(tmp_path, stages, memory=budget, widths=Widths(decode=4, encode=4))
    assert tally.done == 40
    assert stages.most <= most
    assert stages.held == 0


def test_a_picture_larger_than_the_budget_passes_alone(tmp_path):
    files(tmp_path, 20)
    stages = Weighed(sizes={"005.png": 5_000})
    tally, _ = run_folder(tmp_path, stages, memory=1_200, widths=Widths(decode=3, encode=3))
    assert tally.done == 20
    assert stages.most == 25_000


def test_pictures_are_what_one_by_one_gives(tmp_path):
    pictures(tmp_path / "in", 12)
    stages = Enlarge()
    tally, heard = run_folder(tmp_path, stages, widths=Widths(decode=3, encode=3))
    assert tally.done == 12
    assert tally.pixels == sum(outcome.pixels for outcome in heard.ends.values()) > 0
    assert max(heard.shares) == 1.0
    for path in (tmp_path / "in").iterdir():
        expected = stages.compute(read(path), lambda _: None)
        stages.encode(None, expected, tmp_path / f"alone{path.suffix}")
        made = tmp_path / "out" / path.name
        assert made.read_bytes() == (tmp_path / f"alone{path.suffix}").read_bytes()
        (tmp_path / f"alone{path.suffix}").unlink()


def test_a_replaced_output_keeps_its_permissions_and_a_link_stays_a_link(tmp_path):
    files(tmp_path, 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "000.png").write_text("older")
    (tmp_path / "out" / "000.png").chmod(0o640)
    (tmp_path / "far").write_text("older")
    (tmp_path / "out" / "001.png").symlink_to(tmp_path / "far")
    with Manifest.open(None, {}) as manifest:
        plan_folder(manifest, [tmp_path / "in"], tmp_path / "out", overwrite=True)
        assert run(manifest, Copy(), listener=Heard(), memory=1 << 20).done == 2
    assert (tmp_path / "out" / "000.png").read_text() == "0!"
    assert (tmp_path / "out" / "000.png").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "out" / "001.png").is_symlink()
    assert (tmp_path / "far").read_text() == "1!"


def test_stopped_from_outside_it_ends_soon_and_goes_on_later(tmp_path):
    pictures(tmp_path / "in", 12)
    stop = threading.Event()

    class Stopper(Heard):
        def ended(self, job: Job, outcome: Outcome) -> None:
            super().ended(job, outcome)
            if len(self.ends) == 3:
                stop.set()

    slow = Enlarge(seconds=0.1)
    tally = batch(tmp_path / "in", tmp_path / "out", stages=slow, heard=Stopper(), stop=stop)
    assert tally.stopped
    assert 3 <= tally.done < 12
    assert len(outputs(tmp_path / "out")) == tally.done
    assert batch(tmp_path / "in", tmp_path / "out").done == 12 - tally.done


@pytest.mark.skipif(sys.platform == "win32", reason="signals work otherwise there")
def test_ctrl_c_leaves_nothing_half_done_and_the_rest_is_done_later(tmp_path):
    pictures(tmp_path / "in", 30)
    command = [sys.executable, str(Path(__file__).with_name("batching.py")), "in", "out", "--slow", "0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until and not list(tmp_path.glob("out/0*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert "stopped=True" in said
    there = contents(tmp_path / "out")
    assert 1 <= len(there) - 1 < 30
    assert not [name for name in there if ".part" in name or "-wal" in name]
    batch(tmp_path / "in", tmp_path / "out")
    batch(tmp_path / "in", tmp_path / "undisturbed")
    assert outputs(tmp_path / "out") == outputs(tmp_path / "undisturbed")


def test_a_manifest_that_cannot_be_kept_stops_the_batch_in_a_line(tmp_path):
    """The manifest's disk is full: a limit on the size of files is what a test can set."""
    resource = pytest.importorskip("resource")
    files(tmp_path, 200)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from batching import Copy, batch\n"
        "from relume.core.errors import RelumeError\n"
        "import signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "try: batch(Path('in'), Path('out'), stages=Copy())\n"
        "except RelumeError as error: print(type(error).__name__, error)\n"
    )
    assert resource
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"ManifestError out/{FILE_NAME}: the manifest cannot be kept")
    assert len(done.stdout.splitlines()) == 1
    assert batch(tmp_path / "in", tmp_path / "out", stages=Copy()).failed == 0
    assert len(outputs(tmp_path / "out")) == 200


def test_a_single_picture_needs_no_manifest_on_disk(tmp_path):
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in" / "a.png")
    assert run_folder(tmp_path, Enlarge())[0].done == 1
    assert set(contents(tmp_path)) == {"in", "in/a.png", "out", "out/a.png"}
