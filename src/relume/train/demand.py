"""What a training asks of a machine: counted before it starts, and measured over a few real steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from relume.core.machine import free_memory, peak_memory
from relume.data.pairs import workers_watched
from relume.nn.network import count_parameters
from relume.train.loop import Loop
from relume.train.objectives.base import Partnered
from relume.train.state import Holdings
from relume.train.stepping import Stepper

_FEW = 2
"""Patches of each part of a batch that must do where a whole one takes too long; some objectives compare."""


@dataclass(frozen=True)
class Demand:
    """What one patch and the networks take.

    Attributes:
        macs: multiply-accumulates of the training form on one patch.
        activations: bytes that one patch leaves for the backward pass, in the network and in all that the
            objective runs beside it.
        state: bytes of weights, gradients, optimiser and running mean.
    """

    macs: int
    activations: int
    state: int

    def memory(self, patches: int) -> int:
        """Return an estimate of the bytes that a process needs with so many patches at once."""
        return self.state + self.activations * patches


def demand(stepper: Stepper, batch: Mapping[str, Tensor]) -> Demand:
    """Count what a patch asks for; neither weights, buffers nor random numbers change.

    Args:
        stepper: the networks and the objective, on their device.
        batch: as the objective gets it, a few patches.
    """
    holdings, objective = stepper.holdings, stepper.objective
    network, device = stepper.network, stepper.accelerator.device
    batch = {name: values.to(device) for name, values in batch.items()}
    patches = len(batch["input"])
    buffers = [buffer for module in holdings.networks.values() for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            network.train()
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                network(batch["input"])
            held = _Held(holdings)
            with held, stepper.mixed():
                losses = objective(network, batch)
            kept = held.bytes
            del losses
            if isinstance(objective, Partnered):
                held = _Held(holdings)
                with held, stepper.mixed():
                    objective.partner_losses(holdings.networks["partner"])
                kept = max(kept, held.bytes)
        finally:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
    state = 0
    for module in holdings.networks.values():
        for value in module.parameters():
            # Weights; and gradient and two moments of what is trained.
            state += value.nbytes * (4 if value.requires_grad else 1)
        state += 2 * sum(buffer.nbytes for buffer in module.buffers())
    state += sum(value.nbytes for value in holdings.average.mean.values())
    return Demand(counter.get_total_flops() // 2 // patches, kept // patches, state)


class _Held(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that are kept for the backward pass, without those of weights."""

    def __init__(self, holdings: Holdings) -> None:
        self._known = {
            value.untyped_storage().data_ptr()
            for module in holdings.networks.values()
            for value in module.parameters()
        }
        self.bytes = 0
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor  # held, so that no other tensor gets its address


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
        patches: of each step that was measured. Fewer than the process's share of a batch where that would
            have taken too long: then `seconds` is reckoned from them, and `memory` is theirs.
        whole: whether they were all.
    """

    steps: int
    seconds: float
    data_share: float
    memory: int | None
    patches: int
    whole: bool


def time_steps(
    loop: Loop,
    *,
    warm_up: int = 2,
    steps: int = 10,
    most_seconds: float = 30.0,
    tell: Callable[[int, int], None],
) -> Timing:
    """Take a few real steps and time them; the weights move, but nothing is written.

    Where a few steps on whole batches would take longer than there is time, a few patches of each batch must
    do, and the time of a whole one is reckoned from them.

    Args:
        loop: a loop that is not to be run afterwards.
        warm_up: steps that are not counted; loaders that work ahead need as many as they are ahead.
        steps: how many are counted.
        most_seconds: past this time, those that there are must do. Several processes take no notice.
        tell: told how many steps of how many are done.
    """
    device = loop.accelerator.device
    total = min(warm_up + steps, loop.config.steps)
    rank, world = loop.accelerator.process_index, loop.accelerator.num_processes
    batches = loop.source.batches(0, total, rank=rank, world=world, device=device)
    loop.stepper.train()
    patches, share, reckoned = 0, 0, 1.0
    began = time.perf_counter()

    def work(batch: Mapping[str, Tensor], step: int) -> float:
        started = time.perf_counter()
        loop.stepper.step({name: values[:patches] for name, values in batch.items()}, step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    times: list[tuple[float, float]] = []
    with workers_watched(), closing(batches):
        for step in range(total):
            started = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - started
            if step == 0:
                patches = share = len(batch["input"])
            few = _FEW * loop.config.accumulate
            # Several processes must take the same steps.
            if step == 0 and world == 1 and share > few:
                patches, reckoned = few, share / few
                seconds = work(batch, step)
                # The first step is slow where devices and libraries have yet to wake.
                if seconds * reckoned > most_seconds / 3 and seconds < most_seconds / 3:
                    seconds = work(batch, step)
                if seconds * reckoned <= most_seconds / 3:
                    patches, reckoned = share, 1.0
                    seconds = work(batch, step)
            else:
                seconds = work(batch, step)
            times.append((seconds * reckoned, waited))
            tell(step + 1, total)
            if world == 1 and time.perf_counter() - began > most_seconds:
                break
    counted = times[warm_up:] or times[-1:]
    memory = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory()
    whole = sum(seconds + waited for seconds, waited in counted)
    return Timing(
        steps=len(counted),
        seconds=statistics.median(seconds + waited for seconds, waited in counted),
        data_share=sum(waited for _, waited in counted) / whole,
        memory=memory,
        patches=patches,
        whole=patches == share,
    )


def trained_parameters(network: nn.Module) -> int:
    """Return how many of a network's parameters are trained."""
    return count_parameters(network) - sum(
        value.numel() for value in network.parameters() if not value.requires_grad
    )
