"""Seconds and peak memory of `relume upscale` from process start to written file, and of starting alone.

    python benchmarks/end_to_end.py [--photo FILE] [--megapixels 0.3 2 12] [--model cfsr-x4] [--memory 2GiB]

Each run is a process of its own, as a user starts it; the fastest of some counts, as the machine may be
shared. Engines are measured and kernels built in a first run that is told apart. Pictures are cut from
the photo, or repeated beyond its size. The last column should stay flat: large pictures cost no more for
each megapixel than small ones.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

import pyvips
from rich.console import Console
from rich.table import Table


def cut(photo: Path, megapixels: float, target: Path) -> None:
    """Write a 3:2 picture of that size as JPEG, by repeating the photo as far as it is needed."""
    image = pyvips.Image.new_from_file(str(photo))[:3]
    height = round(math.sqrt(megapixels * 1e6 / 1.5))
    width = round(1.5 * height)
    image = image.replicate(-(-width // image.width), -(-height // image.height)).crop(0, 0, width, height)
    image.write_to_file(str(target), Q=92)


def run(*arguments: str) -> tuple[float, float]:
    """Run the command; return its seconds and its peak memory in MiB.

    Raises:
        SystemExit: it failed.
    """
    # A process between asks for the peak of its only child.
    between = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    command = [sys.executable, "-c", between, sys.executable, "-m", "relume.apps.cli", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"relume {' '.join(arguments)} failed: {done.stderr.strip()}")
    return seconds, int(done.stdout.split()[-1]) / (1 << (20 if sys.platform == "darwin" else 10))


def main() -> None:
    """Time and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.3, 2, 12])
    parser.add_argument("--model", default="cfsr-x4")
    parser.add_argument("--memory")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    photo = options.photo or Path(str(resources.files("relume.apps") / "photos" / "astronaut.webp"))
    table = Table(title=f"relume upscale -n {options.model}", title_justify="left")
    table.add_column("what")
    for heading in ("seconds", "peak MiB", "seconds a megapixel of input"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        more = ["--memory", options.memory] if options.memory else []
        for what in (["--version"], ["--help"]):
            results = [run(*what) for _ in range(1 + options.rounds)]
            seconds, memory = min(results)
            table.add_row(f"relume {what[0]}", f"{seconds:.2f}", f"{memory:.0f}", "")
        tiny = folder / "tiny.jpg"
        cut(photo, 0.001, tiny)
        command = ["upscale", "-n", options.model, "--overwrite", *more]
        first, _ = run(*command, str(tiny), "-o", str(folder / "tiny.png"))
        starts = [run(*command, str(tiny), "-o", str(folder / "tiny.png")) for _ in range(options.rounds)]
        table.add_row("0.001 megapixels, first run here", f"{first:.2f}", "", "")
        start, memory = min(starts)
        table.add_row("0.001 megapixels", f"{start:.2f}", f"{memory:.0f}", "")
        for megapixels in options.megapixels:
            source = folder / f"{megapixels:g}.jpg"
            cut(photo, megapixels, source)
            target = str(folder / "out.png")
            seconds, memory = min(run(*command, str(source), "-o", target) for _ in range(options.rounds))
            table.add_row(
                f"{megapixels:g} megapixels", f"{seconds:.2f}", f"{memory:.0f}",
                f"{(seconds - start) / megapixels:.2f}",
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
