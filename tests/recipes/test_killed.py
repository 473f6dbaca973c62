"""A training killed at random moments ends, bit for bit, with the weights of one left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from relume.core.checkpoints import read_checkpoint, read_tensors
from relume.core.pictures import Picture, write
from relume.train.state import FILE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

SETTINGS = ["network.depths=[1]", "network.width=8", "network.kernel_size=3", "data.patch=8", "data.batch=4",
            "threads=1", "log_every=10", "save_every=10", "keep=3", "keep_every=50"]  # fmt: skip


@pytest.fixture
def desk(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "photos").mkdir()
    for index in range(3):
        write(Picture(pixels=torch.rand(3, 64, 64)), tmp_path / "photos" / f"{index}.png")
    return tmp_path


def train(desk, run, *settings, kills=0, world=1, seed=0):
    arguments = ["cfsr-x2", "--data", "photos", "--run", run]
    for setting in (*SETTINGS, *settings):
        arguments += ["--set", setting]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "killing.py"),
         str(desk), str(kills), str(world), str(seed), *arguments],
        capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [int(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("killed at")]


def same(desk):
    (_, alone), (_, killed) = (
        read_checkpoint(desk / run / "cfsr-x2.safetensors") for run in ("alone", "killed")
    )
    ours, theirs = (read_tensors(desk / run / FILE) for run in ("alone", "killed"))
    assert len(ours) > len(alone) * 4  # with moments, mean, partner and random numbers
    return (
        all(torch.equal(alone[name], killed[name]) for name in alone)
        and ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
    )


def test_ten_kills_change_nothing(desk):
    settings = ("steps=300", "objective=judged", "accumulate=2", "objective.weight=0.05")
    train(desk, "alone", *settings)
    killed = train(desk, "killed", *settings, kills=10)
    assert len(killed) == 10
    assert len(set(killed)) > 5
    assert same(desk)
    steps = [json.loads(line)["step"] for line in (desk / "killed" / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(10, steps[-1] + 1, 10))
    alone, left = (
        # Half a file may remain hidden of a process that died over it.
        sorted(path.name for path in (desk / run / "numbered").iterdir() if not path.name.startswith("."))
        for run in ("alone", "killed")
    )
    assert left == alone


def test_two_processes_killed_change_nothing(desk):
    settings = ("steps=100", "objective=judged", "accumulate=2")
    train(desk, "alone", *settings, world=2)
    killed = train(desk, "killed", *settings, world=2, kills=2)
    assert killed[-1] > 0
    assert same(desk)
