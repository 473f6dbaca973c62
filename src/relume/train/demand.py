"""What a training asks of a machine: counted before it starts, and measured over a few real steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from relume.core.machine import free_memory, peak_memory
from relume.data.pairs import workers_watched
from relume.nn.network import count_parameters
from relume.train.loop import Loop
from relume.train.objectives.base import Partnered
from relume.train.objectives.pixel import PixelObjective
from relume.train.state import Holdings
from relume.train.stepping import Stepper

_FEW = 2
"""Patches of each part of a batch that must do where a whole one takes too long; some objectives compare."""

_BRIEF = 50e9
"""Multiply-accumulates of a few patches that a CPU does in a few seconds."""

_LEAST_SIDE = 16
"""Shortest side of a part of a patch, in input pixels: few windows of attention are wider."""


@dataclass(frozen=True)
class Demand:
    """What one patch and the networks take.

    Attributes:
        macs: multiply-accumulates of the training form on one patch.
        activations: bytes that one patch leaves for the backward pass, in the network and in all that the
            objective runs beside it.
        state: bytes of weights, gradients, optimiser and running mean.
        side: of the part of a patch from which the activations are reckoned, in input pixels.
    """

    macs: int
    activations: int
    state: int
    side: int

    def memory(self, patches: int) -> int:
        """Return an estimate of the bytes that a process needs with so many patches at once."""
        return self.state + self.activations * patches


def patch_macs(network: nn.Module, patches: Tensor) -> int:
    """Count the multiply-accumulates of a patch in the training form: of convolutions and matrix products.

    Nothing is computed, unless values decide what the network does; weights and buffers stay.

    Args:
        network: in training mode.
        patches: its input.
    """

    def counted(state: Mapping[str, Tensor], given: Tensor) -> int:
        # Of attention, the counter knows the products alone, not the kernels that do all at once.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            functional_call(network, dict(state), (given,))
        return counter.get_total_flops() // 2 // len(given)

    named = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    try:
        return counted({name: value.to("meta") for name, value in named.items()}, patches.to("meta"))
    except (NotImplementedError, RuntimeError):
        return counted({name: value.detach().clone() for name, value in named.items()}, patches)


def brief_side(macs: int, side: int, stepper: Stepper) -> int:
    """Return the side of the part of a patch on which a step is quick enough to be tried out.

    It is less than the whole for large networks on a CPU, where each pixel has its own loss: other losses may
    need whole patches.

    Args:
        macs: of the whole patch.
        side: of the whole patch.
        stepper: the networks and the objective, on their device.
    """
    if stepper.accelerator.device.type != "cpu" or not isinstance(stepper.objective, PixelObjective):
        return side
    part = side
    while part // 2 >= _LEAST_SIDE and _FEW * macs * (part / side) ** 2 > _BRIEF:
        part //= 2
    return part


def cut(batch: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    """Return the upper left of each patch of a batch: of so many input pixels a side."""
    whole = batch["input"].shape[-1]
    if side == whole:
        return dict(batch)
    ends = {name: side * (batch[name].shape[-1] // whole) for name in ("input", "target")}
    return {**batch, **{name: batch[name][..., :end, :end].contiguous() for name, end in ends.items()}}


def demand(stepper: Stepper, batch: Mapping[str, Tensor], *, brief: bool = False) -> Demand:
    """Count what a patch asks for; neither weights, buffers nor random numbers change.

    Args:
        stepper: the networks and the objective, on their device.
        batch: as the objective gets it, a few patches.
        brief: whether parts of the patches may do, from which the activations are reckoned, see `brief_side`.
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
            macs = patch_macs(network, batch["input"])
            whole = batch["input"].shape[-1]
            side = brief_side(macs, whole, stepper) if brief else whole
            batch = cut(batch, side)
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
    return Demand(macs, round(kept / patches * (whole / side) ** 2), state, side)


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
        side: of the part of each patch that was taken, likewise, in input pixels.
        whole: whether they were all, and whole.
    """

    steps: int
    seconds: float
    data_share: float
    memory: int | None
    patches: int
    side: int
    whole: bool


def time_steps(
    loop: Loop,
    *,
    warm_up: int = 2,
    steps: int = 10,
    most_seconds: float = 30.0,
    side: int | None = None,
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
        side: of the part of each patch that must do where a whole one takes too long (`brief_side`).
        tell: told how many steps of how many are done.
    """
    device = loop.accelerator.device
    total = min(warm_up + steps, loop.config.steps)
    rank, world = loop.accelerator.process_index, loop.accelerator.num_processes
    batches = loop.source.batches(0, total, rank=rank, world=world, device=device)
    loop.stepper.train()
    patches, share, part, whole_side, reckoned = 0, 0, 0, 0, 1.0
    began = time.perf_counter()

    def work(batch: Mapping[str, Tensor], step: int) -> float:
        started = time.perf_counter()
        few = {name: values[:patches] for name, values in batch.items()}
        loop.stepper.step(cut(few, part), step)
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
                whole_side = batch["input"].shape[-1]
                part = side or whole_side
                reckoned = (whole_side / part) ** 2
            few = _FEW * loop.config.accumulate
            # Several processes must take the same steps.
            if step == 0 and world == 1 and (share > few or reckoned > 1):
                patches = min(few, share)
                reckoned *= share / patches
                seconds = work(batch, step)
                # The first step is slow where devices and libraries have yet to wake.
                if seconds * reckoned > most_seconds / 3 and seconds < most_seconds / 3:
                    seconds = work(batch, step)
                if seconds * reckoned <= most_seconds / 3:
                    patches, part, reckoned = share, whole_side, 1.0
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
        side=part,
        whole=patches == share and part == whole_side,
    )


def trained_parameters(network: nn.Module) -> int:
    """Return how many of a network's parameters are trained."""
    return count_parameters(network) - sum(
        value.numel() for value in network.parameters() if not value.requires_grad
    )
