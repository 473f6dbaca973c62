"""Killed at any moment, a batch goes on where it was, and no output is ever partial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from batching import Heard, batch, contents, outputs, pictures
from killing import STEPS

from relume.infer.batch.manifest import FILE_NAME, Manifest
from relume.infer.batch.planning import again, plan

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the killer forks its victims")


def killing(folder: Path, *args: object) -> str:
    program = str(Path(__file__).with_name("killing.py"))
    done = subprocess.run(
        [sys.executable, program, *map(str, args)],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "VIPS_CONCURRENCY": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_killed_25_times_a_batch_gives_what_an_undisturbed_one_gives(tmp_path):
    pictures(tmp_path / "in", 60)
    batch(tmp_path / "in", tmp_path / "undisturbed")
    seen = json.loads(killing(tmp_path, "in", "out", "undisturbed", 25, 0))
    assert seen["killed"] == 25
    assert seen["wrong"] == 0  # nothing that could be seen under an output's name was anything else
    assert seen["STARTED"] > 0  # they died in the middle of work
    assert seen["leftovers"] > 0
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "undisturbed").keys()
    assert outputs(tmp_path / "out") == outputs(tmp_path / "undisturbed")


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what victims left that died at each step of giving an output its name."""
    folder = tmp_path_factory.mktemp("dead")
    pictures(folder / "in", 1)
    batch(folder / "in", folder / "undisturbed")
    killing(folder, "in", "out")
    return folder


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_of_naming_an_output_it_is_not_made_again(dead, step):
    output = dead / f"out-{step}"
    there = contents(output)
    assert any(name.endswith(".part") for name in there) or step == "after clearing"
    with Manifest.resume(output / FILE_NAME) as manifest:
        ready = [job for job, state, _ in manifest.under_way() if state.name == "READY"]
        assert len(ready) == 1
        assert (ready[0].target.name in there) == (step != "before naming")
        before = ready[0].attempt
        plan(manifest, again(manifest))
        assert manifest.job(ready[0].id).attempt == before
        assert ready[0].target.name in contents(output)
    batch(dead / "in", output)
    assert outputs(output) == outputs(dead / "undisturbed")


def test_what_only_lacked_its_name_is_not_put_over_what_somebody_else_has_put_there(dead, tmp_path):
    killing(dead, "in", tmp_path / "out")
    output = tmp_path / "out-before naming"
    with Manifest.resume(output / FILE_NAME) as manifest:
        ready = [job.target for job, state, _ in manifest.under_way() if state.name == "READY"]
    ready[0].write_text("somebody was faster")
    heard = Heard()
    batch(dead / "in", output, heard=heard)
    assert "exists already and was kept" in heard.ends[ready[0].name].reason
    assert ready[0].read_text() == "somebody was faster"
    assert sorted(outputs(output)) == ["000.png"]
