"""Kill a batch again and again, as a program: `killing.py IN OUT UNDISTURBED KILLS SEED`.

It forks, so that each victim starts with everything imported and dies in its work; the moment of
death is drawn from the time that the work takes. Prints one JSON object on what it saw.

`killing.py IN OUT` has one victim for each of `STEPS` die at that very step, each with a folder OUT-STEP.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from batching import Enlarge, batch, contents, outputs

from relume.infer.batch.manifest import FILE_NAME, Manifest

STEPS = ("before naming", "after naming", "after clearing")
"""The gaps between what is written down of an output and what is done on disk."""


def die_at(step: str) -> None:
    """Have this process kill itself beside the system call of a step."""
    module, name = (shutil, "rmtree") if step == "after clearing" else (os, "link")
    call = getattr(module, name)

    def deadly(first: object, *rest: object, **options: object) -> None:
        if name == "link" and ".part/" in str(rest[0]):
            call(first, *rest, **options)  # the writer of pictures names its own whole file in there
            return
        if step == "before naming":
            os.kill(os.getpid(), signal.SIGKILL)
        there = Path(str(first)).exists()
        call(first, *rest, **options)
        if there:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, deadly)


def each_step(source: Path, output: Path) -> None:
    for step in STEPS:
        number = os.fork()
        if number == 0:
            die_at(step)
            batch(source, output.with_name(f"{output.name}-{step}"), stages=Enlarge())
            os._exit(0)
        if os.waitpid(number, 0)[1] != signal.SIGKILL:
            sys.exit(f"the victim lived on {step}")


def child(source: Path, output: Path) -> int:
    """Start one run of the batch in a process of its own."""
    number = os.fork()
    if number == 0:
        try:
            batch(source, output, stages=Enlarge(seconds=0.004))
        finally:
            os._exit(0)
    return number


def main(source: Path, output: Path, undisturbed: Path, kills: int, seed: int) -> None:
    dice = random.Random(seed)
    expected = outputs(undisturbed)
    seen: Counter[str] = Counter(killed=0, ended=0, wrong=0, leftovers=0, STARTED=0, READY=0)
    while seen["killed"] < kills:
        victim = child(source, output)
        time.sleep(dice.uniform(0, 0.25))
        os.kill(victim, signal.SIGKILL)
        _, status = os.waitpid(victim, 0)
        there = contents(output) if output.exists() else {}
        seen["wrong"] += sum(data != expected[name] for name, data in there.items() if name in expected)
        seen["leftovers"] += any(".part" in name for name in there)
        if there.get(FILE_NAME):
            with Manifest.open(output / FILE_NAME, {}) as manifest:
                seen.update(state.name for _, state, _ in manifest.under_way())
        if os.WIFSIGNALED(status):
            seen["killed"] += 1
        else:
            # It had come to its end: take some outputs away, so that there is work again.
            seen["ended"] += 1
            for path in sorted(output.glob("[!.]*"))[:: dice.randint(1, 3)]:
                path.unlink()
    os.waitpid(child(source, output), 0)
    print(json.dumps(seen))


if __name__ == "__main__":
    if len(sys.argv) > 3:
        main(*map(Path, sys.argv[1:4]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        each_step(Path(sys.argv[1]), Path(sys.argv[2]))
