"""Several processes train as one does on the same global batch."""

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

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo needs POSIX here")

SCRIPT = str(Path(__file__).parent / "several.py")
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node=2"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """What `several.py` leaves in one process and in two."""
    desk = tmp_path_factory.mktemp("desk")
    torch.manual_seed(0)
    (desk / "photos").mkdir()
    for index in range(2):
        write(Picture(pixels=torch.rand(3, 48, 48)), desk / "photos" / f"{index}.png")
    launch(desk, [], SCRIPT, "photos", "one")
    said = launch(desk, TORCHRUN, SCRIPT, "photos", "two")
    assert "broadcast_buffers" not in said, said
    return desk


def launch(desk, launcher, *arguments):
    without_gpus = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *launcher, *arguments],
        cwd=desk, capture_output=True, text=True, timeout=300, env=without_gpus,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def same(first, second):
    one, two = read_tensors(first / FILE), read_tensors(second / FILE)
    assert "random/1/cpu" in two
    trained = [name for name in one if name.startswith(("network/", "average/"))]
    return all(torch.allclose(one[name], two[name], rtol=0, atol=1e-5) for name in trained)


@pytest.mark.parametrize("variant", ["cfsr-x2", "espcn-x3", "mhnafnet-small"])
def test_two_processes_end_with_the_weights_of_one(desk, variant):
    assert same(desk / "one" / variant, desk / "two" / variant)


def test_the_command_under_a_launcher_gives_the_same(desk):
    arguments = ["train", "cfsr-x2", "--data", "photos", "--run", "launched"]
    for setting in ("steps=8", "data.batch=4", "data.patch=8", "network.width=8", "network.depths=[1]",
                    "network.kernel_size=3", "threads=1", "log_every=4", "save_every=4", "schedule.warmup=1",
                    "accumulate=2", "degradation=bsrgan"):  # fmt: skip
        arguments += ["--set", setting]
    launch(desk, ACCELERATE, "-m", "relume.apps.cli", *arguments)
    assert same(desk / "one" / "cfsr-x2", desk / "launched")
    header, _ = read_checkpoint(desk / "launched" / "cfsr-x2.safetensors")
    assert (header.trained["device"], header.trained["processes"]) == ("cpu", 2)


def test_processes_agree_on_what_a_loss_that_is_no_number_was(desk):
    outcomes = [json.loads((desk / "two" / f"outcome-{rank}.json").read_text()) for rank in range(2)]
    assert outcomes == [{"broken": True, "overflow": False}] * 2
