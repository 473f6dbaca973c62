"""Settings of the training loop."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from relume.core.config import Config, told

Fraction = Annotated[float, Field(ge=0, lt=1)]


class OptimiserConfig(Config):
    """Adam (Kingma & Ba, arXiv:1412.6980), AdamW (Loshchilov & Hutter, arXiv:1711.05101) or Muon.

    Attributes:
        name: which of the three; Muon is that of `train.muon`.
        learning_rate: the highest one, reached after the warm-up.
        betas: decay of Adam's first and second moment, which Muon takes for what is no matrix.
        momentum: decay of Muon's mean gradient; the others have none.
        weight_decay: decoupled for AdamW and Muon, added to the gradient for Adam.
    """

    name: Literal["adam", "adamw", "muon"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    momentum: Fraction = 0.95
    weight_decay: NonNegativeFloat = 0.0


class ScheduleConfig(Config):
    """Learning rate over the run: linear warm-up, then half a cosine (arXiv:1608.03983, one cycle) or steps.

    Attributes:
        warmup: steps from nearly zero to the full rate.
        floor: last rate of the cosine as a share of the full one.
        halvings: shares of the run after which the rate is halved, in place of the cosine, in their order; ()
            for the cosine.
    """

    warmup: NonNegativeInt = 200
    floor: Fraction = 1e-3
    halvings: tuple[Fraction, ...] = ()

    @field_validator("halvings")
    @classmethod
    def _in_order(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in pairwise(shares)):
            raise told(f"shares of the run grow, such as {sorted({*shares})} (got {list(shares)})")
        return shares


class RecoveryConfig(Config):
    """What happens when a loss or a gradient is no longer a number.

    Such a step never reaches the weights. Its batch is skipped; when more than `skips` are so in a row, the
    run goes back to its last saved state with a lower rate, and after `returns` times without getting past
    the place it gives up.

    Attributes:
        skips: broken steps in a row that are only skipped.
        returns: times that it goes back to one place.
        lower: factor on the learning rate, for the rest of the run, each time that it goes back.
    """

    skips: NonNegativeInt = 3
    returns: NonNegativeInt = 5
    lower: Annotated[float, Field(gt=0, le=1)] = 0.5


class LoopConfig(Config):
    """What the loop needs to know; a recipe adds model, data and objective.

    Attributes:
        steps: how many optimiser steps, up to 1e9.
        seed: up to 2^48; of weights, patches and degradation.
        precision: "fp32", or mixed precision: "bf16", or "fp16" with a loss scale that adapts.
        device: "auto" takes a GPU where there is one; "cpu".
        accumulate: parts into which each process cuts its share of the batch, to hold less at once; the
            gradient is that of the whole, but layers that look at the batch (batch norm) see a part.
        clip: largest norm of the whole gradient; 0 clips nothing.
        ema: decay of the running mean of the weights, which is what is validated and kept; 0: none.
        threads: CPU threads of the run; 0 leaves PyTorch's choice. Results repeat bit for bit
            only with the same number. At most four for each core of the machine that trains.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints to resume from.
        keep: how many of these are kept under their numbers, beside the newest.
        keep_every: those whose number is a multiple of it are kept for good; 0: none.
        validate_every: steps between validations.
        recovery: what happens when the loss is no longer a number.
        optimiser: the optimiser.
        schedule: the learning rate over time.
    """

    steps: Annotated[int, Field(gt=0, le=10**9)] = 1000
    seed: Annotated[int, Field(ge=0, le=2**48)] = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu"] = "auto"
    accumulate: PositiveInt = 1
    clip: NonNegativeFloat = 1.0
    ema: Fraction = 0.999
    threads: NonNegativeInt = 0
    log_every: PositiveInt = 50
    save_every: PositiveInt = 500
    keep: NonNegativeInt = 0
    keep_every: NonNegativeInt = 0
    validate_every: PositiveInt = 500
    recovery: RecoveryConfig = RecoveryConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
