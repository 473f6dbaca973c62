"""On a cluster: every picture exactly once, as this machine alone makes it, whatever dies on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from batching import Enlarge, batch, contents, outputs, picture, pictures

from relume.core.errors import RelumeError
from relume.infer.batch.lanes import Widths
from relume.infer.batch.stages import Job
from relume.infer.batch.worker import Worker, versions

pytest.importorskip("ray", reason="working on a cluster needs the extra `ray`")


def test_a_node_killed_in_the_middle_changes_nothing(tmp_path):
    pictures(tmp_path / "in", 45)
    batch(tmp_path / "in", tmp_path / "local")
    (tmp_path / "out").mkdir()
    program = str(Path(__file__).with_name("clustering.py"))
    done = subprocess.run(
        [sys.executable, program, "in", "out"], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1, done.stdout  # Ray kept silent
    seen = json.loads(done.stdout)
    assert (seen["done"], seen["told"], seen["heard"], seen["lines"]) == (45, 45, 45, [])
    assert seen["begun"] == seen["attempts"] > 45  # what the dead node was at was begun again
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "local").keys()
    assert outputs(tmp_path / "out") == outputs(tmp_path / "local")


def worker(factory=Enlarge) -> Worker:
    return Worker(factory, Widths(), 1 << 20)


def test_a_node_that_cannot_take_part_says_why():
    assert worker().arrive(versions()) is None
    other = worker().arrive({**versions(), "torch": "1.0"})
    assert other == f"has torch {versions()['torch']}, not 1.0; install the same there"

    def broken():
        raise RelumeError("no such model; choose another")

    assert worker(broken).arrive(versions()) == "cannot work: no such model; choose another"


def test_a_worker_tells_what_it_does_not_see_and_what_fails(tmp_path):
    hand = worker()
    hand.arrive(versions())
    (tmp_path / "hidden").mkdir()
    hidden, source = tmp_path / "hidden" / "a.png", tmp_path / "a.png"
    job = Job(id=1, source=source, target=tmp_path / "out.png")
    assert hand.perform(job, hidden).unseen == source.parent
    picture(source)
    assert hand.perform(job, tmp_path / "nowhere" / "a.png").unseen == tmp_path
    report = hand.perform(job, hidden)
    assert report.seal is not None
    assert report.seal.size == hidden.stat().st_size
    source.write_text("text")
    failed = hand.perform(job, hidden)
    assert (failed.seal, failed.outcome.status) == (None, "failed")
    assert "this is text" in failed.outcome.reason


def test_no_cluster_is_told_in_a_line(tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from batching import Enlarge, Heard\n"
        "from relume.core.errors import RelumeError\n"
        "from relume.infer.batch import cluster\n"
        "from relume.infer.batch.manifest import Manifest\n"
        "try:\n"
        "    cluster.run(Manifest.open(None, {}), Enlarge, address='127.0.0.1:1', listener=Heard(),\n"
        "                memory=1)\n"
        "except RelumeError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    assert done.stdout.startswith("no Ray cluster can be reached at '127.0.0.1:1'"), done.stderr
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)
    assert contents(tmp_path) == {}
