"""Seconds and memory of transformers for super-resolution on this CPU, ours and their authors', in one run.

    python benchmarks/transformers.py [--hat hat_arch.py] [--craft craft_arch.py] [--rgt rgt_arch.py]
        [--catanet catanet_arch.py] [--networks hat-s-x4 craft-x4] [--size 128x128] [--threads 1] [--rounds 5]

The authors' files are given by path; networks without theirs are left out. Both run the same weights, random
ones, which ours reads off the authors' state as off a checkpoint of theirs, and their outputs are compared.

Rounds are interleaved: the seconds are the fastest of each, and "times" is the median of theirs over ours
within a round, as the machine may be shared. By a single thread they are seconds of the processor. Memory is
the largest resident beyond what was before running (Linux), each in a process of its own, after a run on a
small picture; the C library is told to give back at once what is freed, which it else keeps for later.
"differs by" is measured in double precision on a quarter of the picture, with sorting that keeps the order of
what is alike: CATANet sorts pixels, which its authors' code leaves to chance where they are.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import math
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from authors import imported
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from relume.core.catalogue import systems
from relume.core.memory import memory_taken
from relume.models import zoo


class Authors(NamedTuple):
    """How a network is built from its authors' file.

    Attributes:
        name: the option that gives their file, and their class in lower case.
        arguments: as in the authors' own configuration.
    """

    name: str
    arguments: dict[str, object]


_HAT: dict[str, object] = {
    "upscale": 4, "img_size": 64, "window_size": 16, "overlap_ratio": 0.5, "depths": (6,) * 6,
    "num_heads": (6,) * 6, "mlp_ratio": 2, "upsampler": "pixelshuffle", "conv_scale": 0.01,
}  # fmt: skip
NETWORKS = {
    "hat-s-x4": Authors("hat", {**_HAT, "embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24}),
    "hat-x4": Authors("hat", {**_HAT, "embed_dim": 180, "compress_ratio": 3, "squeeze_factor": 30}),
    "craft-x4": Authors(
        "craft",
        {"upscale": 4, "embed_dim": 48, "depths": (2,) * 4, "num_heads": (6,) * 4, "mlp_ratio": 2},
    ),
    "rgt-s-x4": Authors(
        "rgt",
        {
            "upscale": 4, "img_size": 64, "embed_dim": 180, "depth": (6,) * 6, "num_heads": (6,) * 6,
            "mlp_ratio": 2, "split_size": (8, 32), "c_ratio": 0.5,
        },
    ),
    "catanet-x4": Authors("catanet", {"upscale": 4}),
}  # fmt: skip
FILES = {
    "hat": ("HAT", "https://github.com/XPixelGroup/HAT: hat/archs/hat_arch.py"),
    "craft": ("CRAFT", "https://github.com/AVC2-UESTC/CRAFT-SR: basicsr/archs/craft_arch.py"),
    "rgt": ("RGT", "https://github.com/zhengchen1999/RGT: basicsr/archs/rgt_arch.py"),
    "catanet": ("CATANet", "https://github.com/EquationWalker/CATANet: basicsr/archs/catanet_arch.py"),
}
SIDES = ("theirs", "ours")


def built(name: str, code: Path, side: str) -> nn.Module:
    """Build a network of the authors or ours, with the same weights.

    Args:
        name: one of `NETWORKS`.
        code: the authors' file.
        side: "theirs" or "ours".
    """
    torch.manual_seed(0)
    authors = NETWORKS[name]
    theirs: nn.Module = getattr(imported(code), FILES[authors.name][0])(**authors.arguments)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)  # many start at zero, where they hide
        if authors.name == "catanet":
            for key, value in theirs.named_buffers():
                if key.endswith("initted"):
                    value.fill_(True)  # as in use
    if side == "theirs":
        return theirs.eval()
    official = zoo.model_file(systems()[authors.name]).from_official(theirs.state_dict())
    assert official is not None
    ours = zoo.build(official.config, system=authors.name)
    ours.load_state_dict(dict(official.state))
    return ours.eval()


def picture(height: int, width: int) -> Tensor:
    """Return a picture with places both smooth and busy, `1 3 H W`."""
    generator = torch.Generator().manual_seed(1)
    smooth = torch.rand(1, 3, height // 8 + 1, width // 8 + 1, generator=generator)
    smooth = nn.functional.interpolate(smooth, (height, width), mode="bicubic", align_corners=False)
    return (0.8 * smooth + 0.2 * torch.rand(1, 3, height, width, generator=generator)).clamp(0, 1)


def memory_of(name: str, code: Path, side: str, size: tuple[int, int], threads: int) -> float:
    """Return the MiB that a network takes for one picture beyond itself."""
    torch.set_num_threads(threads)
    network, low = built(name, code, side), picture(*size)
    with torch.inference_mode():
        network(picture(32, 32))
        with memory_taken("cpu") as taken:
            network(low)
    return math.nan if taken.bytes is None else taken.bytes / (1 << 20)


def times_of(networks: list[nn.Module], low: Tensor, rounds: int) -> list[list[float]]:
    """Return the seconds of each network in each round."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: list[list[float]] = [[] for _ in networks]
    with torch.inference_mode():
        for round_ in range(rounds + 1):
            for network, taken in zip(networks, seconds, strict=True):
                started = clock()
                network(low)
                if round_:  # the first round warms up
                    taken.append(clock() - started)
    return seconds


def difference_of(networks: list[nn.Module], low: Tensor) -> float:
    """Return how far the outputs of two networks differ at most, in double precision."""
    with torch.inference_mode(), _stable_sorting():
        theirs, ours = (copy.deepcopy(network).double()(low.double()) for network in networks)
    return (theirs - ours).abs().max().item()


@contextlib.contextmanager
def _stable_sorting() -> Iterator[None]:
    sorting = torch.argsort
    torch.argsort = functools.partial(sorting, stable=True)
    try:
        yield
    finally:
        torch.argsort = sorting


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, (_, place) in FILES.items():
        parser.add_argument(f"--{name}", type=Path, help=place)
    for name, default in (("threads", 1), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--size", default="128x128", help="width x height")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    width, height = map(int, options.size.split("x"))
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(
        1 << 16
    )  # glibc's, for the processes that memory is measured in
    table = Table(
        title=f"{options.size} input, {options.threads} threads, torch {torch.__version__}",
        title_justify="left",
    )
    table.add_column("network")
    for heading in ("theirs, s", "ours, s", "times", "theirs, MiB", "ours, MiB", "share", "differs by"):
        table.add_column(heading, justify="right")
    for name in options.networks:
        code = getattr(options, NETWORKS[name].name)
        if code is None:
            continue
        taken = []
        for side in SIDES:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                size = (height, width)
                taken.append(alone.submit(memory_of, name, code, side, size, options.threads).result())
        networks = [built(name, code, side) for side in SIDES]
        difference = difference_of(networks, picture(height // 2, width // 2))
        theirs, ours = times_of(networks, picture(height, width), options.rounds)
        times = statistics.median(there / here for there, here in zip(theirs, ours, strict=True))
        table.add_row(
            name, f"{min(theirs):.2f}", f"{min(ours):.2f}", f"{times:.2f}",
            f"{taken[0]:.0f}", f"{taken[1]:.0f}", f"{taken[1] / taken[0]:.2f}", f"{difference:.0e}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
