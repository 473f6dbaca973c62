"""A batch on a cluster of three nodes of which one is killed in the middle: `clustering.py IN OUT`.

Prints one JSON object on what was seen, and nothing else: Ray is to be silent. The nodes live under
a process of their own (`clustering.py nodes`), so that this one imports Ray only as a batch does.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from batching import Enlarge, Heard, plan_folder

from relume.infer.batch import cluster
from relume.infer.batch.manifest import FILE_NAME, Manifest
from relume.infer.batch.records import State
from relume.infer.batch.stages import Job, Outcome


def nodes() -> None:
    """Start three nodes and say their address; kill one when a line comes, end when no more comes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    _, victim = (cluster.add_node(num_cpus=1) for _ in range(2))
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        # With the machine, its workers die too.
        raylet = victim.all_processes["raylet"][0].process.pid
        workers = Path(f"/proc/{raylet}/task/{raylet}/children")
        pids = workers.read_text().split() if workers.exists() else []
        cluster.remove_node(victim, allow_graceful=False)
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
    cluster.shutdown()


@contextlib.contextmanager
def started() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with subprocess.Popen(
        [sys.executable, __file__, "nodes"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
        process.communicate()


class Killer(Heard):
    """Kills a node once it has heard of some ends."""

    def __init__(self, process: subprocess.Popen[str], after: int) -> None:
        super().__init__()
        self._process = process
        self._after = after

    def ended(self, job: Job, outcome: Outcome) -> None:
        super().ended(job, outcome)
        if len(self.ends) == self._after:
            assert self._process.stdin is not None
            self._process.stdin.write("kill\n")
            self._process.stdin.flush()


def main(source: Path, output: Path) -> None:
    lines: list[str] = []
    with started() as (address, process), Manifest.open(output / FILE_NAME, {}) as manifest:
        heard = Killer(process, after=12)
        plan_folder(manifest, [source], output)
        tally = cluster.run(
            manifest, functools.partial(Enlarge, seconds=0.15), address=address, listener=heard,
            memory=1 << 28, tell=lines.append,
        )  # fmt: skip
        attempts = sum(job.attempt for job in manifest.jobs_after(0))
        done = manifest.counts()[State.DONE]
    print(json.dumps({
        "done": done, "told": tally.done, "heard": len(heard.ends), "begun": len(heard.begun_ones),
        "attempts": attempts, "lines": lines, "seconds": tally.seconds,
    }))  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "nodes":
        nodes()
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
