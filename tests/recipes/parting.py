"""Has two processes train together and part, then two others try a recipe and part.

    python parting.py DESK

Right after, each tells in `trained-RANK.json` and `tried-RANK.json` how it leaves: whether the weights, which
the first process writes alone, are there, and whether it still belongs to a group. Forked from one process
that has imported everything, so that a start costs little.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import torch
from killing import free_port

from relume.apps import cli
from relume.recipes.runner import Run, find_recipe

SETTINGS = {"network.depths": [1], "network.width": 8, "network.kernel_size": 3, "data.patch": 8,
            "data.batch": 2, "threads": 1, "steps": 2, "log_every": 1, "device": "cpu"}  # fmt: skip


def tell(what, weights):
    found = {"weights": weights.exists(), "group": torch.distributed.is_initialized()}
    Path(f"{what}-{os.environ['RANK']}.json").write_text(json.dumps(found))


def train():
    recipe = find_recipe("cfsr-x2", "cpu").override(
        {**SETTINGS, "start": None, "data.folders": ["photos"]}, where="recipe"
    )
    tell("trained", Run(recipe, Path("run"), command="test").train())


def rehearse():
    chosen = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    sys.argv = ["relume", "train", "cfsr-x2", "--data", "photos", "--start", "none", "--dry-run", *chosen]
    try:
        cli.main()
    except SystemExit as error:
        if error.code:
            raise
    tell("tried", Path("runs"))


def in_two(work):
    port = free_port()
    pids = []
    for rank in range(2):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true",
        )  # fmt: skip
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not what Python does at its end, which would wait for a group that was not left.
            os._exit(status)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    in_two(train)
    in_two(rehearse)
