"""What collapsing saves in a training step of SESR: collapsing first beside convolving twice, in one run.

    python benchmarks/collapsing.py [--variant sesr-m5-x2] [--threads 2] [--batch 8] [--patch 32] [--rounds 5]

Both compute the same outputs, as biases are zero at first. Rounds are interleaved and the fastest of each is
taken, as the machine may be shared.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.models.super_resolution.sesr import SESR, VARIANTS, LinearBlock


class Expanded(nn.Module):
    """A linear block that convolves twice and adds what is to be added, without collapsing."""

    def __init__(self, block: LinearBlock) -> None:
        super().__init__()
        self.expand, self.project = block.expand, block.project
        size = block.expand.kernel_size[0]
        self.padding = size // 2
        self.register_buffer("added", block.added[..., size // 2, size // 2, None, None])
        self.added: Tensor

    def forward(self, x: Tensor) -> Tensor:
        wide = F.conv2d(x, self.expand.weight, self.expand.bias, padding=self.padding)
        output = self.project(wide)
        return output + F.conv2d(x, self.added) if self.added.any() else output


def expanded(network: SESR) -> SESR:
    """Return the network with all its blocks convolving twice."""
    network = copy.deepcopy(network)
    for name in ("shallow", "expand"):
        setattr(network, name, Expanded(getattr(network, name)))
    network.blocks = nn.ModuleList(Expanded(block) for block in network.blocks)  # type: ignore[arg-type]
    return network


def seconds(network: nn.Module, low: Tensor, high: Tensor) -> float:
    """Return how long forward, backward and an optimiser's step take."""
    optimiser = torch.optim.Adam(network.parameters())
    start = time.perf_counter()
    F.l1_loss(network(low), high).backward()
    optimiser.step()
    taken = time.perf_counter() - start
    network.zero_grad()
    return taken


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--variant", default="sesr-m5-x2", choices=sorted(VARIANTS))
    for option, default in (("threads", 2), ("batch", 8), ("patch", 32), ("rounds", 5)):
        parser.add_argument(f"--{option}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    collapsing = SESR(VARIANTS[arguments.variant].config)  # type: ignore[arg-type]
    twice = expanded(collapsing)
    scale = collapsing.config.scale
    low = torch.rand(arguments.batch, 1, arguments.patch, arguments.patch)
    high = torch.rand(arguments.batch, 1, arguments.patch * scale, arguments.patch * scale)
    with torch.no_grad():
        difference = (collapsing(low) - twice(low)).abs().max().item()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(arguments.rounds):
        for found, network in zip(times, (twice, collapsing), strict=True):
            found.append(seconds(network, low, high))
    slow, fast = map(min, times)
    print(f"{arguments.variant}, {arguments.batch} patches of {arguments.patch}, {arguments.threads} threads")
    print(f"largest difference of outputs  {difference:.1e}")
    print(f"convolving twice               {1e3 * slow:8.1f} ms a step")
    print(f"collapsing first               {1e3 * fast:8.1f} ms a step")
    print(f"ratio                          {slow / fast:8.1f}")


if __name__ == "__main__":
    main()
