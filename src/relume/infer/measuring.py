"""How quick engines are with a model, and how close they come to PyTorch.

Run as a program, it measures what lies in a file: engines leave memory behind that they do not give
back, so where many are tried, that is done in a process of its own.
"""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from relume.core.errors import RelumeError
from relume.infer.engines import engines
from relume.infer.engines.base import Engine, EngineError, Place
from relume.nn.network import Network

_CHECKED = ((33, 41), (24, 56))
"""Heights and widths of the pictures on which an engine must agree with PyTorch."""

_MEASURED = 96
_ROUNDS = 3
_ENOUGH_SECONDS = 0.3
_PAUSE = 0.05
"""Seconds in which the threads of one engine fall asleep before the next is timed."""

Say = Callable[[str], None]


class NotNumbersError(EngineError):
    """An engine gives NaN or infinity."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How one engine did with one model on this machine.

    Attributes:
        engine: its name.
        seconds: for a picture of 96×96 pixels, the fastest of a few; None where it cannot run.
        difference: largest difference from PyTorch in float32, values 0..1.
        reason: why it cannot run.
    """

    engine: str
    seconds: float | None = None
    difference: float | None = None
    reason: str | None = None


def check(engine: Engine, network: Network) -> float:
    """Compare an engine with PyTorch in float32 on small pictures.

    Returns:
        The largest difference found.

    Raises:
        NotNumbersError: it gives NaN or infinity.
        EngineError: the difference is more than the engine's tolerance.
    """
    differences = [_difference(engine, network, height, width) for height, width in _CHECKED]
    difference = max(differences)
    if any(map(math.isnan, differences)):
        raise NotNumbersError(
            f"the engine {engine} differs from PyTorch: it gives values that are no numbers"
        )
    if not difference <= engine.tolerance:
        raise EngineError(
            f"the engine {engine} differs from PyTorch by {difference:.2g}, more than the "
            f"{engine.tolerance:g} allowed; use --engine torch"
        )
    return difference


def measure(network: Network, names: Sequence[str], place: Place) -> list[Measured]:
    """Make engines ready, check and time them, in turns; what one cannot do is its result's reason."""
    made: dict[str, Engine] = {}
    results = {name: Measured(engine=name) for name in names}
    for name in names:
        kind = engines()[name]
        if reason := kind.missing() or kind.refuses(network, place):
            results[name] = Measured(engine=name, reason=reason)
            continue
        try:
            made[name] = kind(network, place)
            difference = check(made[name], network)
            results[name] = Measured(engine=name, seconds=math.inf, difference=difference)
        except RelumeError as error:
            made.pop(name, None)
            results[name] = Measured(engine=name, reason=str(error))
    # Other work comes and goes on a machine; what disturbs one round spares another.
    for _ in range(_ROUNDS):
        for name, engine in made.items():
            time.sleep(_PAUSE)
            before = results[name]
            assert before.seconds is not None
            results[name] = Measured(
                engine=name, seconds=min(before.seconds, _seconds(engine)), difference=before.difference
            )
    return list(results.values())


def measured_apart(
    network: Network, names: Sequence[str], place: Place, *, say: Say | None = None
) -> list[Measured]:
    """Return what `measure` does, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "work"
        try:
            torch.save((network, list(names), place), path)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            failed = str(error)
        else:
            done = subprocess.run(
                [sys.executable, "-m", "relume.infer.measuring", str(path)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode == 0:
                return [Measured(**one) for one in json.loads(done.stdout.splitlines()[-1])]
            failed = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    if say:
        say(f"the engines cannot be measured in a process of their own ({failed[:200]}), so here")
    return measure(network, names, place)


def _seconds(engine: Engine) -> float:
    """Return the fastest of a few runs."""
    low = torch.rand(1, engine.channels, _MEASURED, _MEASURED)
    best, spent = math.inf, 0.0
    while spent < _ENOUGH_SECONDS:
        started = time.perf_counter()
        engine(low)
        seconds = time.perf_counter() - started
        best, spent = min(best, seconds), spent + seconds
    return best


@torch.inference_mode()
def _difference(engine: Engine, network: Network, height: int, width: int) -> float:
    low = _test_picture(engine.channels, height, width)
    output = engine(low)
    # On the CPU in float32, whatever the engine's own place.
    expected = network.to("cpu")(low)
    if output.shape != expected.shape:
        return math.inf
    if not math.isfinite(output.sum().item()):
        return math.nan
    return (output - expected).abs().max().item()


def _test_picture(channels: int, height: int, width: int) -> Tensor:
    """Waves and noise, the same on every machine."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    waves = torch.stack(
        [torch.sin(rows / (3 + c) + c) * torch.cos(columns / (5 - c % 3)) for c in range(channels)]
    )
    noise = torch.rand(waves.shape, generator=torch.Generator().manual_seed(0))
    return (0.5 + 0.3 * waves + 0.2 * (noise - 0.5)).clamp(0, 1)[None]


def _measure_file(path: str) -> None:
    """Measure what `measured_apart` wrote, and print it as the last line."""
    network, names, place = torch.load(path, weights_only=False)  # our own, just written
    torch.set_num_threads(place.threads)
    print(json.dumps([asdict(one) for one in measure(network, names, place)]))


if __name__ == "__main__":
    _measure_file(sys.argv[1])
