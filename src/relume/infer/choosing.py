"""From a model to an engine that runs it here: checked against PyTorch, and the quickest if none is named."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace

import torch
from pydantic import TypeAdapter

from relume.core.errors import RelumeError, UnknownNameError
from relume.core.files import write_text
from relume.core.machine import cache_folder, cache_trouble, processor
from relume.infer.engines import engines
from relume.infer.engines.base import Engine, EngineError, Place
from relume.infer.measuring import Measured, NotNumbersError, Say, check, measured_apart
from relume.nn.network import Network

_Timed = dict[str, float | None]
_KEPT = TypeAdapter(dict[str, _Timed])

AUTO = "auto"
"""Engine name that means: the quickest here."""


def default_engine() -> str:
    """Return the engine that the environment names in `RELUME_ENGINE`, else "auto"."""
    return os.environ.get("RELUME_ENGINE") or AUTO


def default_device() -> str:
    """Return "cuda" where PyTorch finds such a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def make_ready(
    network: Network, *, engine: str | None = None, place: Place | None = None, say: Say | None = None
) -> Engine:
    """Return a model on an engine, checked.

    Args:
        network: the model, in evaluation mode.
        engine: an engine's name; "auto" takes the quickest, measured once for a machine and kind of model;
            None takes `default_engine`.
        place: where to run; None takes `default_device` and PyTorch's number of threads.
        say: told what takes long, one line each.

    Raises:
        UnknownNameError: no such engine.
        EngineError: it cannot be used here, cannot run the model, or disagrees with PyTorch.

    Where a short arithmetic gives values that are no numbers already in the check, it is done in fp32, and
    said.
    """
    place = place or Place(device=default_device(), threads=torch.get_num_threads())
    engine = engine or default_engine()
    if engine == AUTO:
        engine = quickest(network, place, say=say)
    elif engine not in engines():
        raise UnknownNameError("engine", engine, {AUTO, *engines()})
    kind = engines()[engine]
    if reason := kind.missing() or kind.refuses(network, place):
        raise EngineError(f"the engine {engine} cannot be used: {reason}")
    if kind.slow_to_make and say:
        say(f"making the engine {engine} ready; where that has not been done before it takes minutes")
    made = kind(network, place)
    if say and (trouble := cache_trouble()):
        say(trouble)
    try:
        check(made, network)
    except NotNumbersError:
        if place.precision == "fp32":
            raise
        if say:
            say(f"in {place.precision} the model gives values that are no numbers; going on in fp32")
        return make_ready(network, engine=engine, place=replace(place, precision="fp32"), say=say)
    return made


def quickest(network: Network, place: Place, *, say: Say | None = None) -> str:
    """Return the name of the quickest engine that can be used without long preparation.

    Measured once for a machine, place and kind of model, and remembered in the cache folder; `relume engines`
    measures again.
    """
    able = _able(network, place)
    if len(able) == 1:
        return able[0]
    key = _key(network, place, able)
    known = _remembered()
    if key not in known:
        if say:
            say(f"measuring which engine is the quickest here ({', '.join(able)}); the answer is kept")
        results = measured_apart(network, able, place, say=say)
        known[key] = {one.engine: one.seconds for one in results}
        try:
            remember(network, place, results)
        except RelumeError as error:
            if say:
                say(f"the answer is not kept: {error}")
    timed = {name: seconds for name, seconds in known[key].items() if seconds is not None and name in able}
    return min(timed, key=lambda name: timed[name]) if timed else "torch"


def remember(network: Network, place: Place, results: Iterable[Measured]) -> None:
    """Keep what was measured for `quickest`, in the place of an earlier measurement.

    Raises:
        RelumeError: it cannot be written.
    """
    able = _able(network, place)
    known = _remembered()
    known[_key(network, place, able)] = {one.engine: one.seconds for one in results if one.engine in able}
    write_text(cache_folder() / "engines.json", json.dumps(known, indent=1))


def _able(network: Network, place: Place) -> list[str]:
    """Engines worth measuring, PyTorch first."""
    fitting = [
        name
        for name, kind in engines().items()
        if name != "torch" and not kind.slow_to_make and not (kind.missing() or kind.refuses(network, place))
    ]
    return ["torch", *fitting]


def _key(network: Network, place: Place, able: list[str]) -> str:
    """Tell this machine, place and kind of model from others; speed does not depend on the weights."""
    versions = [f"{name} {engines()[name].version()}" for name in able]
    config = network.config.model_dump_json()
    told = (type(network).__qualname__, config, network.steps, place, processor(), versions)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:24]


def _remembered() -> dict[str, _Timed]:
    path = cache_folder() / "engines.json"
    try:
        return _KEPT.validate_json(path.read_bytes())
    except (OSError, ValueError):  # none yet, or damaged: measured anew
        return {}
