"""Short trainings that tests make, left alone or stopped in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relume.recipes.runner import Run
from relume.train.loop import RunStoppedError


def trained(prepare: Callable[[], Run], *, stop_after: int | None = None) -> Run:
    """Train to the end.

    Args:
        prepare: makes the run ready, each time in the same folder.
        stop_after: steps after which it is stopped, for another run to go on; None: it is left alone.
    """
    if stop_after is not None:
        stopped = prepare()
        take = stopped.loop.stepper.step

        def step(batch: Any, number: int, **more: Any) -> Any:
            if number + 1 == stop_after:
                stopped.loop.ask_to_stop()
            return take(batch, number, **more)

        stopped.loop.stepper.step = step
        with pytest.raises(RunStoppedError):
            stopped.train()
    run = prepare()
    run.train()
    return run
