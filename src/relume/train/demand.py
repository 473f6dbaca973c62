"""What a training asks of a machine: counted before it starts, and measured over a few real steps."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from relume.core.machine import free_memory, peak_memory
from relume.nn.network import count_parameters
from relume.train.loop import Loop
from relume.train.state import Holdings


@dataclass(frozen=True)
class Demand:
    """What one patch and the networks take.

    Attributes:
        macs: multiply-accumulates of the training form on one patch.
        activations: bytes that one patch leaves for the backward pass.
        state: bytes of weights, gradients, optimiser and running mean.
    """

    macs: int
    activations: int
    state: int

    def memory(self, patches: int) -> int:
        """Return an estimate of the bytes that a process needs with so many patches at once."""
        return self.state + self.activations * patches


def demand(holdings: Holdings, patch: Tensor, *, precision: str) -> Demand:
    """Count what a patch asks for; neither weights, buffers nor random numbers change.

    Args:
        holdings: the networks, on their device.
        patch: `1 C H W`.
        precision: as in `LoopConfig`.
    """
    network = holdings.networks["network"]
    device = next(network.parameters()).device
    buffers = [buffer.clone() for buffer in network.buffers()]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            macs, activations = _forward(network.train(), patch.to(device), mixed=precision != "fp32")
        finally:
            for buffer, before in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(before)
    state = 0
    for module in holdings.networks.values():
        for value in module.parameters():
            # Weights; and gradient and two moments of what is trained.
            state += value.nbytes * (4 if value.requires_grad else 1)
        state += 2 * sum(buffer.nbytes for buffer in module.buffers())
    state += sum(value.nbytes for value in holdings.average.mean.values())
    return Demand(macs, activations, state)


def _forward(network: nn.Module, patch: Tensor, *, mixed: bool) -> tuple[int, int]:
    """Return multiply-accumulates and the bytes kept for the backward pass."""
    weights = {value.untyped_storage().data_ptr() for value in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # held, so that no other tensor gets its address

    counter = FlopCounterMode(display=False)
    with (
        counter,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast(patch.device.type, torch.bfloat16, enabled=mixed),
    ):
        output = network(patch)
    del output
    return counter.get_total_flops() // 2, sum(kept.values())


def memory_left(device: torch.device) -> int | None:
    """Return the bytes that are free where a training on the device computes, or None where unknown."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


@dataclass(frozen=True)
class Timing:
    """What a few real steps came to.

    Attributes:
        steps: how many were measured, after those that warm up.
        seconds: of the median step.
        data_share: share of the time that was spent waiting for data.
        memory: largest memory of the process so far (of the GPU, where it computes there), bytes; None where
            it cannot be read.
    """

    steps: int
    seconds: float
    data_share: float
    memory: int | None


def time_steps(loop: Loop, *, warm_up: int = 2, steps: int = 10, most_seconds: float = 60.0) -> Timing:
    """Take a few real steps and time them; the weights move, but nothing is written.

    Args:
        loop: a loop that is not to be run afterwards.
        warm_up: steps that are not counted; loaders that work ahead need as many as they are ahead.
        steps: how many are counted.
        most_seconds: past this time, those that there are must do.
    """
    device = loop.accelerator.device
    total = min(warm_up + steps, loop.config.steps)
    rank, world = loop.accelerator.process_index, loop.accelerator.num_processes
    batches = iter(loop.source.batches(0, total, rank=rank, world=world, device=device))
    loop.stepper.train()
    began = time.perf_counter()
    times: list[tuple[float, float]] = []
    for step in range(total):
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        loop.stepper.step(batch, step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - started, waited))
        # Several processes must take the same number of steps.
        if world == 1 and time.perf_counter() - began > most_seconds:
            break
    counted = times[warm_up:] or times[-1:]
    memory = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory()
    return Timing(
        steps=len(counted),
        seconds=statistics.median(seconds for seconds, _ in counted),
        data_share=sum(waited for _, waited in counted) / sum(seconds for seconds, _ in counted),
        memory=memory,
    )


def trained_parameters(network: nn.Module) -> int:
    """Return how many of a network's parameters are trained."""
    return count_parameters(network) - sum(
        value.numel() for value in network.parameters() if not value.requires_grad
    )
