"""From a name or a file to a model that is ready for use.

Model files are found by the catalogue and imported when asked for; none is
listed here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from relume.core.catalogue import System, find_variant, systems, variants
from relume.core.checkpoints import (
    Header,
    is_safetensors,
    read_checkpoint,
    read_header,
    read_tensors,
    unprefixed,
)
from relume.core.config import Config
from relume.core.errors import CheckpointError, UnknownNameError, nearest
from relume.core.variants import Official, Variant
from relume.models.recognition import BREAKING, likest_of, misfit, nature
from relume.nn.network import Network
from relume.nn.surgery import apply_steps

_AUTHORS = "the authors"
_ANEW = "get the file anew, or one whose network relume has"


def model_file(system: System) -> ModuleType:
    """Import the file that is a system's home."""
    return import_module(system.module)


def variant(name: str) -> Variant:
    """Return a variant's config and parameter count.

    Raises:
        UnknownNameError: there is none of that name.
    """
    found = find_variant(name)
    result: Variant = model_file(systems()[found.system]).VARIANTS[name]
    return result


def build(config: Config, *, system: str, steps: Iterable[str] = ()) -> Network:
    """Build a model with random weights.

    Args:
        config: the model's own settings.
        system: short name of the system.
        steps: surgery to do after building.
    """
    network: Network = model_file(systems()[system]).NETWORK(config)
    return apply_steps(network, steps)


def config_class(system: str) -> type[Config]:
    """Return the class of a system's settings."""
    module = model_file(systems()[system])
    return type(next(iter(module.VARIANTS.values())).config)


def load(name_or_path: str | Path) -> tuple[Network, Header]:
    """Load a model by the name of a variant that we ship, or from a weights file of ours or its authors'.

    Returns:
        The model in evaluation mode on the CPU, and what is known of it.

    Raises:
        UnknownNameError: no such variant and no such file.
        CheckpointError: the file cannot be used, or the variant has no weights with us.
    """
    path = Path(name_or_path)
    if not looks_like_a_file(name_or_path):
        found = find_variant(str(name_or_path))
        if found.weights_path is None:
            raise CheckpointError(
                f"{found.name} comes without weights; train it (relume train {found.name}) or name a file"
            )
        path = found.weights_path
    elif not os.path.lexists(path) and len(path.parts) == 1 and (close := nearest(path.stem, variants())):
        raise CheckpointError(f"there is no file {path}; did you mean the model {close!r}?")
    if not is_safetensors(path) or read_header(path) is None:
        return load_official(path)
    header, state = read_checkpoint(path)
    network = _build_from_header(path, header, state)
    _fill(network, state, path, system=header.model, file=state)
    return network.eval(), header


def looks_like_a_file(name_or_path: str | Path) -> bool:
    """Tell a path from a variant's name: it has a suffix or a folder, or is there."""
    path = Path(name_or_path)
    if isinstance(name_or_path, Path):
        return True
    if name_or_path in variants():  # whatever lies in the folder that the user happens to be in
        return False
    return len(path.parts) > 1 or path.suffix != "" or os.path.lexists(name_or_path)


def load_official(path: Path, changes: Mapping[str, Any] | None = None) -> tuple[Network, Header]:
    """Load an authors' checkpoint.

    Args:
        path: a `.pth` or `.safetensors` with the authors' keys.
        changes: settings that a checkpoint does not show, by name.

    Raises:
        CheckpointError: unreadable, or of no architecture that we know.
        ConfigError: a change that the model's config does not take.
    """
    state = read_tensors(path)
    name, official = recognise(state, path)
    config = official.config.override(changes or {}, where=f"settings of {name}")
    network = build(config, system=name, steps=official.steps)
    advice = f"change or leave out what is set ({', '.join(changes)}), or {_ANEW}" if changes else _ANEW
    _fill(network, official.state, path, system=name, file=state, advice=advice)
    header = Header(
        model=name,
        variant=variant_of(name, config, official.steps),
        config=config.model_dump(mode="json"),
        steps=official.steps,
        trained={"by": _AUTHORS, "file": path.name, **_on_trust(name, official, config, changes or {})},
    )
    return network.eval(), header


def _on_trust(
    system: str, official: Official, config: Config, changes: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return, under "on_trust", the settings that neither the weights show nor the user gave."""
    hidden = dict.fromkeys(model_file(systems()[system]).OFFICIAL_SETTINGS.values())
    values: dict[str, Any] = {}
    for name in hidden:
        if name not in official.shown and name not in changes:
            values[name] = config.model_dump(mode="json")
            for part in name.split("."):
                values[name] = values[name][part]
    return {"on_trust": values} if values else {}


def told_on_trust(header: Header, path: str | os.PathLike[str]) -> str | None:
    """Return a line on the settings of authors' weights that were taken on trust, None where there are none.

    Args:
        header: what `load` or `load_official` gave.
        path: where the weights came from.
    """
    settings = header.trained.get("on_trust", {})
    taken = ", ".join(f"{name} {json.dumps(value)}" for name, value in settings.items())
    change = f"(change: relume convert {path} --set NAME=VALUE)"
    return f"taken on trust, as the file does not show it: {taken} {change}" if taken else None


def scales_of(network: Network, header: Header) -> tuple[int, ...]:
    """Return the scales that a network's weights were trained for.

    Its authors' serve all that the network has layers for; a training of ours is for one of them.
    """
    by_authors = header.trained.get("by") == _AUTHORS
    return (by_authors and network.contract.scales) or (network.contract.scale,)


def at_scale(network: Network, header: Header, scale: int) -> tuple[Network, Header]:
    """Return the network for another scale that its weights serve; they are shared.

    Args:
        network: as `load` gave it.
        header: likewise.
        scale: one of `scales_of`.
    """
    config = network.config.override({"scale": scale}, where=f"settings of {header.model}")
    other = build(config, system=header.model, steps=header.steps)
    other.load_state_dict(network.state_dict(), assign=True)
    variant = variant_of(header.model, config, header.steps)
    return other.eval(), replace(header, variant=variant, config=config.model_dump(mode="json"))


def recognise(state: Mapping[str, Tensor], path: Path) -> tuple[str, Official]:
    """Find the system whose authors' checkpoint this is.

    Raises:
        CheckpointError: none or several fit.
    """
    fitting: list[tuple[str, Official]] = []
    broken: dict[str, Exception] = {}
    # A safetensors file keeps the keys that wrappers gave it.
    state = unprefixed(state)
    homes = {name: model_file(system) for name, system in systems().items() if system.variants}
    for name, home in homes.items():
        try:
            official = home.from_official(state)
        except BREAKING as error:
            broken[name] = error
            continue
        if official is not None:
            fitting.append((name, official))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(name for name, _ in fitting)
        raise CheckpointError(
            f"{path} fits several architectures ({names}); say which, with a relume checkpoint"
        )
    if broken:
        raise CheckpointError(f"{path} {likest_of(broken, state)}; {_ANEW}")
    raise CheckpointError(
        f"{path} is of no architecture that relume knows (list them: relume models --all); "
        f"{nature(state, homes)}"
    )


def variant_of(
    system: str, config: Config, steps: Iterable[str] = (), *, wanted: str | None = None
) -> str | None:
    """Return the variant with that config to which the surgery done so far leads, None without one.

    Args:
        system: its system.
        config: its settings.
        steps: surgery done so far.
        wanted: which of several to take; else the first.
    """
    fitting = [
        str(name)
        for name, candidate in model_file(systems()[system]).VARIANTS.items()
        if candidate.config == config and set(steps) <= set(candidate.steps)
    ]
    return wanted if wanted in fitting else next(iter(fitting), None)


def _build_from_header(path: Path, header: Header, state: Mapping[str, Tensor]) -> Network:
    if header.model not in systems():
        close = nearest(header.model, systems())
        advice = f"; did its name change to {close!r}?" if close else "; a newer relume may know it"
        raise CheckpointError(
            f"{path} holds a {header.model[:80]!r} model, which this relume does not know{advice}"
        )
    _check_numbers(path, header.config, state)
    config = config_class(header.model).parse(header.config, where=f"settings in {path}")
    try:
        if variant_of(header.model, config) is None:
            # Without memory first: a few bytes of settings may claim a network of any size. (Our own variants
            # are known to be small, and PyTorch takes a second before it can do this.)
            with torch.device("meta"):
                claimed = build(config, system=header.model, steps=header.steps).state_dict()
            _check_shapes(path, claimed, state)
        return build(config, system=header.model, steps=header.steps)
    except UnknownNameError as error:
        raise CheckpointError(f"{path}: {error}; a newer relume may know it") from error


def _check_numbers(path: Path, config: object, state: Mapping[str, Tensor]) -> None:
    """Refuse settings of numbers that nothing in the weights bears out: building would take for ever.

    Widths are sides of tensors, depths are counts of them; what else there is, is small.
    """
    sides = (side for tensor in state.values() if tensor.numel() for side in tensor.shape)
    most = max(1024, len(state), *sides)
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += [*value, len(value), sum(number for number in value if isinstance(number, int))]
        elif isinstance(value, int | float) and abs(value) > most:
            raise CheckpointError(
                f"{path}: settings claim {str(value)[:20]}, which its weights do not bear out; "
                "get the file anew"
            )


def _check_shapes(path: Path, claimed: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Refuse settings that claim a network of more values than the weights have."""
    values = [sum(tensor.numel() for tensor in each.values()) for each in (claimed, state)]
    if values[0] > values[1]:
        raise CheckpointError(
            f"{path}: settings claim a network of {values[0]:,} values, its weights have {values[1]:,}; "
            "get the file anew or convert the original again"
        )


def _fill(
    network: Network,
    state: Mapping[str, Tensor],
    path: Path,
    *,
    system: str,
    file: Mapping[str, Tensor],
    advice: str = _ANEW,
) -> None:
    """Load a state, under our names, into its network; `file` has the same tensors under the file's."""
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        what = misfit(network.state_dict(), state, file)
        raise CheckpointError(f"{path} looks like {system} but does not fit: {what}; {advice}") from error
