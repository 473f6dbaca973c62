"""Runs `relume train` again and again in forked processes and kills them at random moments.

    python killing.py DESK KILLS WORLD SEED ARGUMENT ...

Forked from one process that has imported everything, so that a start costs little. Prints, for each
kill, the step of the state that was there. Then lets the training end.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

from safetensors import safe_open

import relume.models.super_resolution.cfsr
import relume.recipes.cfsr
import relume.recipes.reading
import relume.recipes.runner
import relume.train.objectives

# One more idea among the objectives: found by its file, like any other.
relume.train.objectives.__path__.append(str(Path(__file__).parent / "ideas"))


def start(arguments, *, rank, world, port):
    pid = os.fork()
    if pid:
        return pid
    if world > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true",
        )  # fmt: skip
    from relume.apps import cli

    sys.argv = ["relume", "train", *arguments]
    try:
        cli.main()
    except SystemExit as error:
        os._exit(error.code or 0)
    finally:
        sys.stderr.flush()
    os._exit(0)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes(arguments, world):
    port = free_port()
    return [start(arguments, rank=rank, world=world, port=port) for rank in range(world)]


def step_of(state):
    if not state.exists():
        return 0
    with safe_open(state, "np") as file:
        return json.loads(file.metadata()["training"])["step"]


def ended(pids):
    """Tell whether the first has ended by itself."""
    return os.waitpid(pids[0], os.WNOHANG)[0] != 0


def main():
    desk, kills, world, seed, *arguments = sys.argv[1:]
    os.chdir(desk)
    moments = random.Random(int(seed))
    state = Path(arguments[arguments.index("--run") + 1]) / "state.safetensors"
    before = 0
    for _ in range(int(kills)):
        pids = processes(arguments, int(world))
        # Some die while they begin, most after they have come further than the last one.
        patience = time.monotonic() + 60
        if moments.random() < 0.8:
            while step_of(state) <= before and not ended(pids):
                time.sleep(0.005)
                assert time.monotonic() < patience, "no state was written"
        time.sleep(moments.uniform(0, 0.25))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            assert os.waitpid(pid, 0)[1] == signal.SIGKILL, "the run was over before it could be killed"
        before = step_of(state)
        print("killed at", before, flush=True)
    for pid in processes(arguments, int(world)):
        status = os.waitpid(pid, 0)[1]
        assert status == 0, status


if __name__ == "__main__":
    main()
