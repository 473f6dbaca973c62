"""The training loop: batches in, objective down, nothing else known.

The loop knows a network, an objective and a source of batches for each step. It
carries devices, processes and mixed precision through `accelerate`, keeps a
running mean of the weights, and can be killed at any moment: started again on
the same folder it continues from its last checkpoint, on a CPU bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn

from relume.core.errors import ConfigError, RelumeError
from relume.core.machine import most_threads
from relume.data.pairs import workers_watched
from relume.train.objectives.base import Objective
from relume.train.settings import LoopConfig
from relume.train.state import (
    EARLIER,
    FILE,
    Progress,
    keep_numbered,
    load_state,
    random_state,
    read_progress,
    save_state,
    set_aside,
    undisturbed_random,
)
from relume.train.stepping import Stepper


class BatchSource(Protocol):
    """Gives the batches of any range of steps, for one of several processes."""

    def batches(
        self, first: int, last: int, *, rank: int, world: int, device: torch.device
    ) -> Generator[Mapping[str, Tensor], None, None]:
        """Yield one batch for each step from `first` to `last - 1`, on the device; closed after the last."""
        ...


class Observer(Protocol):
    """Is told what happens; draws progress, writes logs, saves pictures."""

    def started(self, step: int, steps: int) -> None:
        """The loop begins after `step` of `steps` steps; told again when it goes back."""
        ...

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """What was measured since the last call, as means over steps and processes.

        Losses by name, "gradient" (its norm before clipping), "learning_rate", "seconds_per_step", and
        "data_share", the share of the time spent waiting for data.
        """
        ...

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a validation."""
        ...

    def noticed(self, step: int, text: str) -> None:
        """Something that the user should know, in one line."""
        ...

    def finished(self, step: int) -> None:
        """The loop has ended, done or interrupted."""
        ...


class RunStoppedError(RelumeError):
    """The user asked the run to stop; its state is saved."""


Validate = Callable[[nn.Module, int], Mapping[str, float]]
"""Measures a network after a step; one of its figures decides which weights are best."""

KeepWeights = Callable[[Mapping[str, Tensor], int], None]
"""Is given the averaged state and the step after which it is."""


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
        decides: which of its figures tells the best weights, if it is among them.
        lowest: whether the lowest of that figure is best, rather than the highest.
        observers: who is told.
        on_best: called whenever a validation was the best so far.
        on_numbered: called whenever a state is kept under its number, with the path for its weights.

    Raises:
        ConfigError: more threads than the machine can bear.
        RelumeError: the device cannot compute in the precision.
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
        decides: str = "psnr",
        lowest: bool = False,
        observers: Iterable[Observer] = (),
        on_best: KeepWeights | None = None,
        on_numbered: KeepWeights | None = None,
    ) -> None:
        if config.threads > most_threads():
            raise ConfigError(
                f"threads: {config.threads} are too many for this machine; choose 1 … {most_threads()}, or 0 "
                f"for as many as PyTorch chooses"
            )
        if config.threads:
            torch.set_num_threads(config.threads)
        self.accelerator = Accelerator(
            # Without a GPU, accelerate has several processes share the work only where it is told of the CPU:
            # each would else train on its own.
            cpu=config.device == "cpu" or not torch.accelerator.is_available(),
            mixed_precision="no",
            # Buffers of the first process are not sent before each forward: a partner that is called twice
            # in a step would find its own changed under the gradient.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self.config = config
        self.source = source
        self.folder = folder
        self.validate = validate
        self.decides = decides
        self.lowest = lowest
        self.observers = tuple(observers) if self.accelerator.is_main_process else ()
        self.on_best = on_best
        self.on_numbered = on_numbered
        self.network = network
        self.stepper = Stepper(network, objective, config, self.accelerator)
        if self.accelerator.process_index:
            # Processes share the weights, but layers such as dropout must not draw the same in each.
            torch.manual_seed(config.seed * 4099 + self.accelerator.process_index)
        self.progress = Progress(step=0, seconds=0.0, best=None, recipe=recipe)
        self.stop_asked = False
        self._beginning: dict[str, Tensor] | None = None

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.progress.step

    def ask_to_stop(self) -> None:
        """Ask the run to save its state and stop after the step that is under way."""
        self.stop_asked = True

    def run(self) -> dict[str, Tensor]:
        """Train to the last step, from wherever the folder's state stands; return the averaged weights.

        Raises:
            RunStoppedError: `ask_to_stop` was called; the state is saved.
            RelumeError: the loss is no longer a number whatever was tried, the state cannot be written, or a
                process that loads data was ended from outside.
        """
        self.resume()
        for observer in self.observers:
            observer.started(self.step, self.config.steps)
        try:
            with workers_watched(lambda: f" after step {self.step} of {self.config.steps}"):
                while self.step < self.config.steps:
                    self._train()
        finally:
            for observer in self.observers:
                observer.finished(self.step)
        return self.stepper.holdings.average.state(self.network)

    def resume(self) -> None:
        """Take up the folder's state, if there is one."""
        progress = read_progress(self.folder)
        if self._good_state()[1] is None:
            # Until the first state that is due, this is where a run goes back to.
            self._beginning = {name: value.clone() for name, value in self.stepper.holdings.tensors()}
        if progress is None:
            return
        load_state(self.folder, self.stepper.holdings, rank=self.accelerator.process_index)
        self._take_up(progress)

    def _take_up(self, progress: Progress) -> None:
        self.progress = progress
        if self.stepper.scaler and progress.scaler:
            self.stepper.scaler.load_state_dict(dict(progress.scaler))

    def _train(self) -> None:
        """Train until the last step, or until the run has gone back."""
        meter = _Meter()
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batches = self.source.batches(
            self.step, self.config.steps, rank=rank, world=world, device=self.accelerator.device
        )
        with closing(batches):
            self.stepper.train()
            while self.step < self.config.steps:
                started = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - started
                outcome = self.stepper.step(batch, self.step, slowed=self.progress.slowed)
                seconds = time.perf_counter() - started
                broken = self.progress.broken
                if outcome.broken:
                    broken += 1
                elif not outcome.overflow:
                    broken = 0
                self.progress = replace(
                    self.progress, step=self.step + 1, seconds=self.progress.seconds + seconds, broken=broken
                )
                meter.add_time(seconds, waited)
                if outcome.broken:
                    if broken > self.config.recovery.skips:
                        self._go_back()
                        return
                    self._notice("the loss or its gradient is no number; this batch is skipped")
                elif not outcome.overflow:
                    meter.add(outcome.values)
                last = self.step == self.config.steps
                stopping = self._stop_agreed()
                if self.step % self.config.log_every == 0 or last:
                    self._log(meter.take(self.accelerator))
                if self.validate and (self.step % self.config.validate_every == 0 or last):
                    self._validate()
                if self._is_due(self.progress) or last or stopping:
                    if not self._weights_are_numbers():
                        self._go_back()
                        return
                    self.save()
                if stopping and not last:
                    raise RunStoppedError(
                        f"stopped after step {self.step} of {self.config.steps}; the same command goes on"
                    )

    def _is_due(self, progress: Progress) -> bool:
        """Tell whether a state of this progress is saved anyhow, also where nobody stops the run."""
        return progress.step % self.config.save_every == 0 and not progress.broken

    def _stop_agreed(self) -> bool:
        """Tell whether to stop now; several processes ask each other, but only now and then."""
        if self.accelerator.num_processes == 1:
            return self.stop_asked
        if self.step % self.config.log_every:
            return False
        asked = torch.tensor(float(self.stop_asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked) > 0)

    def _log(self, means: dict[str, float]) -> None:
        if "loss" not in means:  # every batch since the last line was skipped, which has been said
            return
        for observer in self.observers:
            observer.logged(self.step, {**means, "learning_rate": self.stepper.rate})

    def _notice(self, text: str) -> None:
        for observer in self.observers:
            observer.noticed(self.step, text)

    def _weights_are_numbers(self) -> bool:
        norms = torch._foreach_norm([value.detach().float() for value in self.network.parameters()])
        return bool(torch.stack(norms).isfinite().all())

    def _go_back(self) -> None:
        """Take up the last good state with a lower rate.

        All of it follows from the states that are due and the batches, so a run that is killed or stopped
        meanwhile does the same.

        Raises:
            RelumeError: it went back too often.
        """
        recovery, reached = self.config.recovery, self.progress
        returns = reached.returns + 1
        name, saved = self._good_state()
        if returns > recovery.returns:
            precise = "" if self.config.precision == "fp32" else " or use precision=fp32"
            left = f"; the last good state is in {self.folder}" if saved else ""
            raise RelumeError(
                f"the loss is no longer a number near step {self.step}, also after going back "
                f"{recovery.returns} times and lowering the learning rate to {reached.slowed:.2g} of the "
                f"scheduled one; lower optimiser.learning_rate{precise}{left}"
            )
        if saved is not None:
            load_state(self.folder, self.stepper.holdings, rank=self.accelerator.process_index, name=name)
        else:
            assert self._beginning is not None
            self.stepper.holdings.load(self._beginning)
            saved = replace(reached, step=0, best=None, broken=0, scaler={})
        slowed = reached.slowed * recovery.lower
        self._take_up(
            replace(
                saved,
                seconds=reached.seconds,
                slowed=slowed,
                returns=returns,
                trouble=max(reached.trouble, reached.step),
            )
        )
        for observer in self.observers:
            observer.started(self.step, self.config.steps)
        self._notice(
            f"the loss was no number near step {reached.step}: back to the state of step {self.step}, with "
            f"{slowed:.2g} of the scheduled learning rate"
        )

    def _good_state(self) -> tuple[str, Progress | None]:
        """Return the name and progress of the last state that was due; no progress where there is none."""
        newest = read_progress(self.folder)
        if newest is None or self._is_due(newest):
            return FILE, newest
        earlier = read_progress(self.folder, EARLIER)
        # The user may have put a state of before in the newest one's place.
        return EARLIER, earlier if earlier is not None and earlier.step < newest.step else None

    def _validate(self) -> None:
        if not self.accelerator.is_main_process or self.validate is None:
            return
        kept = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        averaged = self.stepper.holdings.average.state(self.network)
        self.network.load_state_dict(averaged)
        self.network.eval()
        try:
            with undisturbed_random():
                figures = self.validate(self.network, self.step)
        finally:
            self.network.load_state_dict(kept)
            self.stepper.train()
        for observer in self.observers:
            observer.validated(self.step, figures)
        figure, best = figures.get(self.decides), self.progress.best
        if figure is not None and (best is None or (figure < best if self.lowest else figure > best)):
            self.progress = replace(self.progress, best=figure)
            if self.on_best:
                with undisturbed_random():
                    self.on_best(averaged, self.step)

    def save(self) -> None:
        """Write the state to continue from."""
        due = self._is_due(self.progress)
        if due and self.step > self.progress.trouble:
            self.progress = replace(self.progress, returns=0, trouble=0)
        scaler = self.stepper.scaler.state_dict() if self.stepper.scaler else {}
        self.progress = replace(self.progress, scaler=scaler)
        random = [random_state()]
        if self.accelerator.num_processes > 1:
            random = gather_object(random)
        if self.accelerator.is_main_process:
            before = None if due else read_progress(self.folder)
            if before is not None and self._is_due(before):
                set_aside(self.folder)
            save_state(self.folder, self.stepper.holdings, self.progress, random)
            keep, keep_every = self.config.keep, self.config.keep_every
            if keep_numbered(self.folder, self.step, keep=keep, keep_every=keep_every) and self.on_numbered:
                # The random state has been saved; going on from here must draw the same.
                with undisturbed_random():
                    self.on_numbered(self.stepper.holdings.average.state(self.network), self.step)
            if due:
                (self.folder / EARLIER).unlink(missing_ok=True)
        if due:
            self._beginning = None
        self.accelerator.wait_for_everyone()

    def part(self) -> None:
        """Let the processes part; all of them call it when the last has nothing more to say.

        Without it, several processes wait for each other for ever when they exit; and one that leaves
        while another still works can end in "terminate called without an active exception".
        """
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


class _Meter:
    """Means, over steps and processes, of what was added; one synchronisation for each taking."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._steps = 0
        self._seconds = 0.0
        self._waited = 0.0

    def add_time(self, seconds: float, waited: float) -> None:
        """Count a step, and how much of its time went into waiting for data."""
        self._steps += 1
        self._seconds += seconds
        self._waited += waited

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        means = {
            name: float(accelerator.reduce(value, reduction="mean")) / self._counts[name]
            for name, value in self._sums.items()
        }
        means["seconds_per_step"] = self._seconds / self._steps
        means["data_share"] = self._waited / self._seconds
        self._sums, self._counts, self._steps, self._seconds, self._waited = {}, {}, 0, 0.0, 0.0
        return means
