"""The training loop: batches in, objective down, nothing else known.

The loop knows a network, an objective and a source of batches for each step. It
carries devices, processes and mixed precision through `accelerate`, keeps a
running mean of the weights, and can be killed at any moment: started again on
the same folder it continues from its last checkpoint, on a CPU bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from relume.core.errors import RelumeError
from relume.train.ema import WeightAverage
from relume.train.objectives.base import Objective
from relume.train.settings import LoopConfig, OptimiserConfig, ScheduleConfig
from relume.train.state import Progress, load_state, read_progress, save_state


class BatchSource(Protocol):
    """Gives the batches of any range of steps, for one of several processes."""

    def batches(
        self, first: int, last: int, *, rank: int, world: int, device: torch.device
    ) -> Iterable[Mapping[str, Tensor]]:
        """Yield one batch for each step from `first` to `last - 1`, on the device."""
        ...


class Observer(Protocol):
    """Is told what happens; draws progress, writes logs, saves pictures."""

    def started(self, step: int, steps: int) -> None:
        """The loop begins after `step` of `steps` steps."""
        ...

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Losses, learning rate, gradient norm and seconds a step, as means since the last call."""
        ...

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a validation."""
        ...

    def finished(self, step: int) -> None:
        """The loop has ended, done or interrupted."""
        ...


class RunStoppedError(RelumeError):
    """The user asked the run to stop; its state is saved."""


Validate = Callable[[nn.Module, int], Mapping[str, float]]
"""Measures a network after a step; the figure "psnr", if given, decides which weights are best."""


def learning_rate(step: int, steps: int, optimiser: OptimiserConfig, schedule: ScheduleConfig) -> float:
    """Return the rate of step `step` (from 0) of `steps`: linear warm-up, then half a cosine to the floor."""
    warmup = min(schedule.warmup, steps)
    if step < warmup:
        return optimiser.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return optimiser.learning_rate * (schedule.floor + (1 - schedule.floor) * cosine)


def build_optimiser(parameters: Iterable[nn.Parameter], config: OptimiserConfig) -> torch.optim.Optimizer:
    """Return the optimiser that the config names."""
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    # Fused: hundreds of small tensors are updated in one call, which on a CPU saves 5 % of CFSR's step.
    return kind(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


class Loop:
    """One training run in one folder.

    Args:
        network: what is trained, in its training form.
        objective: what is minimised.
        source: where batches come from.
        config: steps, optimiser, schedule, precision …
        folder: where the state lies; it must exist.
        recipe: the resolved recipe as plain values, kept in the state.
        validate: measures the averaged weights every `config.validate_every` steps.
        observers: who is told.
        on_best: called with the averaged state whenever a validation was the best so far.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        source: BatchSource,
        config: LoopConfig,
        *,
        folder: Path,
        recipe: Mapping[str, Any],
        validate: Validate | None = None,
        observers: Iterable[Observer] = (),
        on_best: Callable[[Mapping[str, Tensor], int], None] | None = None,
    ) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.accelerator = Accelerator(cpu=config.device == "cpu")
        self.config = config
        self._refuse_missing_precision()
        self.objective = objective
        self.source = source
        self.folder = folder
        self.recipe = recipe
        self.validate = validate
        self.observers = tuple(observers) if self.accelerator.is_main_process else ()
        self.on_best = on_best
        self.network = network.to(self.accelerator.device)
        optimiser = build_optimiser(self.network.parameters(), config.optimiser)
        self.wrapped, self.optimiser = self.accelerator.prepare(self.network, optimiser)
        self.average = WeightAverage(self.network, config.ema)
        self.step = 0
        self.best: float | None = None
        self.seconds = 0.0
        self.stop_asked = False

    def ask_to_stop(self) -> None:
        """Ask the run to save its state and stop after the step that is under way."""
        self.stop_asked = True

    def run(self) -> dict[str, Tensor]:
        """Train to the last step, from wherever the folder's state stands; return the averaged weights.

        Raises:
            RunStoppedError: `ask_to_stop` was called; the state is saved.
            RelumeError: the loss is no longer a number, or the state cannot be written.
        """
        self._resume()
        for observer in self.observers:
            observer.started(self.step, self.config.steps)
        try:
            self._train()
        finally:
            for observer in self.observers:
                observer.finished(self.step)
        return self.average.state(self.network)

    def _train(self) -> None:
        meter = _Meter()
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.wrapped.train()
        started = time.perf_counter()
        device = self.accelerator.device
        for batch in self.source.batches(self.step, self.config.steps, rank=rank, world=world, device=device):
            values = self._one_step(batch)
            self.step += 1
            meter.add(values)
            now = time.perf_counter()
            self.seconds += now - started
            meter.seconds += now - started
            started = now
            last = self.step == self.config.steps
            stopping = self._stop_agreed()
            if self.step % self.config.log_every == 0 or last:
                self._log(meter.take(self.accelerator))
            if self.validate and (self.step % self.config.validate_every == 0 or last):
                self._validate()
                started = time.perf_counter()
            if self.step % self.config.save_every == 0 or last or stopping:
                self._refuse_broken(values)
                self.save()
            if stopping and not last:
                raise RunStoppedError(
                    f"stopped after step {self.step} of {self.config.steps}; the same command goes on"
                )

    def _one_step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rate = learning_rate(self.step, self.config.steps, self.config.optimiser, self.config.schedule)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # Not accelerate's autocast, which would stay on the network and colour its validation as well.
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=mixed):
            losses = self.objective(self.wrapped, batch)
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(losses["loss"])
        limit = self.config.clip or math.inf
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), limit)
        self.optimiser.step()
        self.average.update(self.network, self.step + 1)
        return {**{name: value.detach() for name, value in losses.items()}, "gradient": norm.detach()}

    def _refuse_missing_precision(self) -> None:
        device = self.accelerator.device
        if self.config.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            name = torch.cuda.get_device_name(device)
            raise RelumeError(f"{name} cannot compute in bf16; use --set precision=fp32")

    def _stop_agreed(self) -> bool:
        """Tell whether to stop now; several processes ask each other, but only now and then."""
        if self.accelerator.num_processes == 1:
            return self.stop_asked
        if self.step % self.config.log_every:
            return False
        asked = torch.tensor(float(self.stop_asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked) > 0)

    def _log(self, means: dict[str, float]) -> None:
        self._refuse_broken(means)
        rate = learning_rate(self.step - 1, self.config.steps, self.config.optimiser, self.config.schedule)
        for observer in self.observers:
            observer.logged(self.step, {**means, "learning_rate": rate})

    def _refuse_broken(self, values: Mapping[str, Tensor | float]) -> None:
        """Stop before weights that are no longer numbers can be logged or saved."""
        if not all(math.isfinite(float(values[name])) for name in ("loss", "gradient")):
            raise RelumeError(
                f"the loss is no longer a number near step {self.step}; lower optimiser.learning_rate or use "
                f"precision=fp32; the last good state is kept in {self.folder}"
            )

    def _validate(self) -> None:
        if not self.accelerator.is_main_process or self.validate is None:
            return
        kept = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        averaged = self.average.state(self.network)
        self.network.load_state_dict(averaged)
        self.network.eval()
        try:
            figures = self.validate(self.network, self.step)
        finally:
            self.network.load_state_dict(kept)
            self.wrapped.train()
        for observer in self.observers:
            observer.validated(self.step, figures)
        figure = figures.get("psnr")
        if figure is not None and (self.best is None or figure > self.best):
            self.best = figure
            if self.on_best:
                self.on_best(averaged, self.step)

    def save(self) -> None:
        """Write the state to continue from."""
        if self.accelerator.is_main_process:
            progress = Progress(self.step, self.seconds, self.best, self.recipe)
            save_state(self.folder, self.network, self.optimiser, self.average, progress)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        progress = read_progress(self.folder)
        if progress is None:
            return
        load_state(self.folder, self.network, self.optimiser, self.average)
        self.step, self.seconds, self.best = progress.step, progress.seconds, progress.best


class _Meter:
    """Means, over steps and processes, of what was added; one synchronisation for each taking."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self.seconds = 0.0

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        means = {
            name: float(accelerator.reduce(value, reduction="mean")) / self._count
            for name, value in self._sums.items()
        }
        means["seconds_per_step"] = self.seconds / self._count
        self._sums, self._count, self.seconds = {}, 0, 0.0
        return means
