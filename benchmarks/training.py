"""Steps a second of `relume train`'s loop beside a loop of bare PyTorch, in one run.

    python benchmarks/training.py [--variant cfsr-x2] [--batch 8] [--patch 32] [--rounds 16] [--threads 2]

Same network, batch, loss and optimiser. The bare loop is what a tutorial shows: forward, L1, backward,
Adam, nothing else. Ours also clips, looks whether loss and gradient are numbers, keeps the running mean
of the weights, times and logs; a second bare loop does the clipping and the running mean too, by hand.
Rounds of a few steps are interleaved and the fastest of each way is taken, as the machine may be shared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from relume.core.catalogue import find_variant
from relume.models import zoo
from relume.train.loop import Loop
from relume.train.objectives.pixel import PixelConfig
from relume.train.observers import JsonLog
from relume.train.settings import LoopConfig, ScheduleConfig

Batch = dict[str, Tensor]


def bare(network: nn.Module, batch: Batch, *, precision: str, extras: bool) -> Callable[[], None]:
    """Return one step of a plain loop, with or without clipping and a running mean."""
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=True)
    mean = [value.detach().clone() for value in network.parameters()]

    def step() -> None:
        with torch.autocast(batch["input"].device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = F.l1_loss(network(batch["input"]).float(), batch["target"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if extras:
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if extras:
            torch._foreach_lerp_(mean, [value.detach() for value in network.parameters()], 1e-3)

    return step


class Interleaved:
    """A source of one batch for ever that, between rounds of the loop that asks it, times the other ways.

    Attributes:
        best: the fastest round of each way, seconds a step; the loop that asks is "relume train".
    """

    def __init__(self, ways: dict[str, Callable[[], None]], batch: Batch, *, rounds: int, steps: int) -> None:
        self.ways = ways
        self.batch = batch
        self.rounds = rounds
        self.steps = steps
        self.best: dict[str, float] = {}

    def batches(
        self, first: int, last: int, *, rank: int, world: int, device: torch.device
    ) -> Iterator[Batch]:
        """Yield the batch for each step, and one more to come back after the last round."""
        del first, last, rank, world, device
        for round_ in range(self.rounds + 1):  # the first warms up
            for name, step in self.ways.items():
                started = self._now()
                for _ in range(self.steps):
                    step()
                self._count(name, self._now() - started, warm=round_ > 0)
            started = self._now()
            for _ in range(self.steps):
                yield self.batch
            self._count("relume train", self._now() - started, warm=round_ > 0)
        yield self.batch

    def _now(self) -> float:
        if self.batch["input"].is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _count(self, name: str, seconds: float, *, warm: bool) -> None:
        if warm:
            self.best[name] = min(self.best.get(name, float("inf")), seconds / self.steps)


def main() -> None:
    """Time the ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("threads", 2), ("batch", 8), ("patch", 32), ("rounds", 16), ("steps", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--variant", default="cfsr-x2")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    on_gpu = options.device == "auto" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    config = zoo.variant(options.variant).config
    network = zoo.build(config, system=find_variant(options.variant).system).to(device)
    scale, channels = network.contract.scale, network.contract.channels
    shape = (options.batch, channels, options.patch, options.patch)
    batch = {
        "input": torch.rand(shape, device=device),
        "target": torch.rand(*shape[:2], *(options.patch * scale,) * 2, device=device),
    }
    names = {"bare PyTorch": False, "bare PyTorch, clipping, running mean": True}
    ways = {
        name: bare(deepcopy(network), batch, precision=options.precision, extras=extras)
        for name, extras in names.items()
    }
    source = Interleaved(ways, batch, rounds=options.rounds, steps=options.steps)
    total = (options.rounds + 1) * options.steps + 1
    settings = LoopConfig(
        steps=total, save_every=total, device=options.device, precision=options.precision,
        threads=options.threads, schedule=ScheduleConfig(warmup=0),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(network, PixelConfig().build(), source, settings, folder=Path(folder), recipe={},
                    observers=[JsonLog(Path(folder))])  # fmt: skip
        loop.run()
    table = Table(
        title=f"{options.variant}, {options.batch} patches of {options.patch}x{options.patch}, "
        f"{options.precision}, {device}, {options.threads} threads, torch {torch.__version__}",
        title_justify="left",
    )
    table.add_column("loop")
    table.add_column("steps/s", justify="right")
    table.add_column("share of bare", justify="right")
    first = next(iter(source.best.values()))
    for name, seconds in source.best.items():
        table.add_row(name, f"{1 / seconds:.2f}", f"{first / seconds:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
