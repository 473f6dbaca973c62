"""One optimiser step: forward, losses, backward, and what keeps a broken one from the weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from relume.core.errors import RelumeError
from relume.train.ema import WeightAverage
from relume.train.muon import Muon
from relume.train.objectives.base import Drawing, Objective, Partnered, Placed, Recording, Share
from relume.train.settings import LoopConfig, OptimiserConfig, ScheduleConfig
from relume.train.state import Holdings

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def learning_rate(step: int, steps: int, optimiser: OptimiserConfig, schedule: ScheduleConfig) -> float:
    """Return the rate of step `step` (from 0) of `steps`: warm-up, then a cosine to the floor or halvings."""
    warmup = min(schedule.warmup, steps)
    if step < warmup:
        return optimiser.learning_rate * (step + 1) / warmup
    if schedule.halvings:
        return optimiser.learning_rate * 0.5 ** sum(step >= share * steps for share in schedule.halvings)
    progress = (step - warmup) / max(1, steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return optimiser.learning_rate * (schedule.floor + (1 - schedule.floor) * cosine)


def build_optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Return the optimiser that the config names, of all the network's parameters."""
    if config.name == "muon":
        return Muon(
            network,
            lr=config.learning_rate,
            momentum=config.momentum,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    # Fused: hundreds of small tensors are updated in one call, which on a CPU saves 5 % of CFSR's step.
    return kind(
        network.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


@dataclass(frozen=True)
class Outcome:
    """What a step came to.

    Attributes:
        values: losses as means over this process's share of the batch, and the gradient's norm before
            clipping, as tensors on the device.
        broken: a loss or a gradient was no number, in some process; weights, moments and buffers are as
            before.
        overflow: broken only because the loss scale was too large for fp16; it has been lowered.
    """

    values: Mapping[str, Tensor]
    broken: bool = False
    overflow: bool = False


class Stepper:
    """A network, and the partner of its objective where there is one, with their optimisers.

    Args:
        network: what is trained; it and all that the objective holds move to the accelerator's device.
        objective: what is minimised.
        config: optimiser, schedule, precision …
        accelerator: device and processes.

    Attributes:
        holdings: all that a step changes.

    Raises:
        RelumeError: the device cannot compute in the precision.
    """

    def __init__(
        self, network: nn.Module, objective: Objective, config: LoopConfig, accelerator: Accelerator
    ) -> None:
        self.objective = objective
        self.config = config
        self.accelerator = accelerator
        device = accelerator.device
        _refuse_missing_precision(config.precision, device)
        if isinstance(objective, Placed):
            objective.to(device)
        self.network = network.to(device)
        self._partnered = objective if isinstance(objective, Partnered) else None
        self._drawing = objective if isinstance(objective, Drawing) else None
        self._recording = objective if isinstance(objective, Recording) else None
        networks = {"network": self.network}
        self._configs = {"network": config.optimiser}
        if self._partnered:
            networks["partner"] = self._partnered.partner.to(device)
            self._configs["partner"] = self._partnered.optimiser or config.optimiser
        # Networks that compute in channels-last memory have such gradients; that it costs a copy is known.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # Only PyTorch's newest versions know the name that is to follow, and accelerate does not pass it on.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        self._wrapped: dict[str, nn.Module] = {
            name: accelerator.prepare(module) for name, module in networks.items()
        }
        optimisers = {name: build_optimiser(module, self._configs[name]) for name, module in networks.items()}
        self.holdings = Holdings(networks, optimisers, WeightAverage(self.network, config.ema))
        self.scaler = torch.amp.GradScaler(device.type) if config.precision == "fp16" else None
        self._buffers = [buffer for module in networks.values() for buffer in module.buffers()]
        self._kept = [buffer.detach().clone() for buffer in self._buffers]

    @property
    def rate(self) -> float:
        """The network's learning rate, as its optimiser had it for the last step."""
        rate: float = self.holdings.optimisers["network"].param_groups[0]["lr"]
        return rate

    def train(self) -> None:
        """Put the networks into training mode."""
        for module in self._wrapped.values():
            module.train()

    def step(self, batch: Mapping[str, Tensor], step: int, *, slowed: float = 1.0) -> Outcome:
        """Take one step of the network and its partner, or none where a loss or gradient is no number.

        Args:
            batch: this process's share.
            step: number of the step, from 0.
            slowed: factor on the scheduled learning rate.

        Raises:
            RelumeError: the batch cannot be cut into `config.accumulate` parts.
        """
        for name, optimiser in self.holdings.optimisers.items():
            rate = slowed * learning_rate(step, self.config.steps, self._configs[name], self.config.schedule)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
        if self._buffers:
            torch._foreach_copy_(self._kept, [buffer.detach() for buffer in self._buffers])
        losses, noted = self._gradients(batch, step)
        norms = self._clipped()
        values = {**losses, **norms}
        minimised = [losses[name] for name in ("loss", "partner_loss") if name in losses]
        finite = torch.stack([value.float() for value in (*minimised, *norms.values())]).isfinite()
        if self._anywhere(~finite.all()):
            return self._refused(values, gradients_only=not self._anywhere(~finite[: len(minimised)].all()))
        for optimiser in self.holdings.optimisers.values():
            optimiser.step()
        if self.scaler:
            self.scaler.update()
            values["loss_scale"] = torch.full_like(losses["loss"], self.scaler.get_scale())
        if self._recording:
            self._recording.remember([self.accelerator.reduce(mean, reduction="mean") for mean in noted])
        self.holdings.average.update(self.network, step + 1)
        return Outcome(values)

    def _gradients(self, batch: Mapping[str, Tensor], step: int) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Leave the gradients of the whole batch in the parameters.

        Returns:
            Losses, and what the objective noted for its record, as means over this process's share.
        """
        parts = self.config.accumulate
        means: dict[str, Tensor] = {}
        noted: list[Tensor] = []
        for index, part in enumerate(_cut(batch, parts)):
            with ExitStack() as stack:
                if index < parts - 1:  # processes add up their gradients once, with the last part
                    for module in self._wrapped.values():
                        stack.enter_context(self.accelerator.no_sync(module))
                if self._drawing:
                    self._drawing.share = self._share(step, index)
                losses = self._judged(part, parts)
                if self._recording:
                    some = [mean / parts for mean in self._recording.noted()]
                    noted = [a + b for a, b in zip(noted, some, strict=True)] if index else some
                if self._partnered:
                    with self.mixed():
                        partner = self._partnered.partner_losses(self._wrapped["partner"])
                    self._backward(partner["loss"] / parts)
                    losses |= {
                        f"partner_{name}" if name == "loss" else name: partner[name] for name in partner
                    }
            for name, value in losses.items():
                value = value.detach() / parts
                means[name] = means[name] + value if name in means else value
        return means, noted

    def _share(self, step: int, part: int) -> Share:
        # The last number tells these draws from those of patches and degradations.
        (seed,) = np.random.SeedSequence([self.config.seed, step, 1]).generate_state(1, np.uint64)
        parts = self.config.accumulate
        return Share(
            seed=int(seed),
            place=self.accelerator.process_index * parts + part,
            places=self.accelerator.num_processes * parts,
        )

    def _judged(self, part: Mapping[str, Tensor], parts: int) -> dict[str, Tensor]:
        partner = self.holdings.networks.get("partner")
        with _without_gradient(partner), self.mixed():
            losses = self.objective(self._wrapped["network"], part)
        self._backward(losses["loss"] / parts)
        return dict(losses)

    def _backward(self, loss: Tensor) -> None:
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def mixed(self) -> torch.autocast:
        """Return the context in which losses are computed: the precision of the settings."""
        # Not accelerate's autocast, which would stay on the network and colour its validation as well.
        precision = self.config.precision
        return torch.autocast(self.accelerator.device.type, _TYPES[precision], enabled=precision != "fp32")

    def _clipped(self) -> dict[str, Tensor]:
        """Clip each network's gradient and return the norms before."""
        norms = {}
        for name, module in self.holdings.networks.items():
            if self.scaler:
                self.scaler.unscale_(self.holdings.optimisers[name])
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), self.config.clip or math.inf)
            norms["gradient" if name == "network" else f"{name}_gradient"] = norm.detach()
        return norms

    def _anywhere(self, broken: Tensor) -> bool:
        """Tell whether it is so in any process."""
        if self.accelerator.num_processes > 1:
            return bool(self.accelerator.reduce(broken.float()) > 0)
        return bool(broken)

    def _refused(self, values: Mapping[str, Tensor], *, gradients_only: bool) -> Outcome:
        if self._buffers:
            torch._foreach_copy_([buffer.detach() for buffer in self._buffers], self._kept)
        overflow = False
        if self.scaler:
            overflow = gradients_only and self.scaler.get_scale() > 1
            self.scaler.update()
        return Outcome(values, broken=not overflow, overflow=overflow)


def _cut(batch: Mapping[str, Tensor], parts: int) -> Iterator[Mapping[str, Tensor]]:
    if parts == 1:
        yield batch
        return
    for name, value in batch.items():
        if len(value) % parts:
            raise RelumeError(
                f"accumulate={parts} cannot cut a process's {len(value)} samples ({name}) into equal parts; "
                f"choose a data.batch that is a multiple"
            )
    for index in range(parts):
        yield {name: value.tensor_split(parts)[index] for name, value in batch.items()}


@contextmanager
def _without_gradient(module: nn.Module | None) -> Iterator[None]:
    """Keep gradients out of a module's parameters; they still flow through it."""
    parameters = [value for value in module.parameters() if value.requires_grad] if module else []
    for value in parameters:
        value.requires_grad_(False)
    try:
        yield
    finally:
        for value in parameters:
            value.requires_grad_(True)


def _refuse_missing_precision(precision: str, device: torch.device) -> None:
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(device)
        raise RelumeError(f"{name} cannot compute in bf16; use --set precision=fp16 or fp32")
