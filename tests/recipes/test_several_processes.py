"""Several processes train as one does on the same global batch."""

import os
import subprocess
import sys

import pytest
import torch

from relume.core.checkpoints import read_checkpoint
from relume.core.pictures import Picture, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo needs POSIX here")


def test_two_processes_end_with_the_weights_of_one(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "photos").mkdir()
    for index in range(2):
        write(Picture(pixels=torch.rand(3, 48, 48)), tmp_path / "photos" / f"{index}.png")
    arguments = ["train", "cfsr-x2", "--data", "../photos"]
    for setting in ("steps=8", "data.batch=4", "data.patch=8", "network.width=8", "network.depths=[1]",
                    "network.kernel_size=3", "threads=1", "log_every=4", "save_every=4",
                    "accumulate=2", "degradation=bsrgan", "device=cpu"):  # fmt: skip
        arguments += ["--set", setting]
    launchers = {
        "one": [],
        "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node=2"],
        "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"],
    }
    for run, launcher in launchers.items():
        (tmp_path / run).mkdir()
        subprocess.run(
            [sys.executable, *launcher, "-m", "relume.apps.cli", *arguments],
            cwd=tmp_path / run, check=True, capture_output=True, timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    (_, one), *others = (
        read_checkpoint(tmp_path / run / "runs" / "cfsr-x2" / "cfsr-x2.safetensors") for run in launchers
    )
    for header, two in others:
        assert header.trained["processes"] == 2
        assert max((one[name] - two[name]).abs().max() for name in one) <= 1e-6
