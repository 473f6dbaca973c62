"""Named configs of a model, and what an authors' checkpoint turns into."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relume.core.config import Config

if TYPE_CHECKING:
    from torch import Tensor

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Variant:
    """A named config of a model.

    Attributes:
        config: the settings that the name stands for.
        parameters: how many parameters the model must have in the form that
            is used (after `steps`).
        steps: the surgery that turns the trained form into the form that is used.
    """

    config: Config
    parameters: int
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Official:
    """An authors' checkpoint in our terms.

    Attributes:
        config: the settings.
        state: the tensors under our keys.
        steps: surgery done before saving.
        shown: which of the settings that its system's checkpoints do not show in general (the model file's
            `OFFICIAL_SETTINGS`, by our names) this one does, or to which they make no difference.
    """

    config: Config
    state: Mapping[str, Tensor]
    steps: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


Replacement = str | Callable[[re.Match[str]], str]
"""What stands in place of a pattern, as `re.sub` takes it."""


def renamed(key: str, renames: Iterable[tuple[str, Replacement]]) -> str:
    """Return a key of a checkpoint with patterns replaced, one after the other.

    Args:
        key: the authors' name of a tensor.
        renames: regular expressions and what stands in their place.
    """
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


class _Renamed(dict[str, "Tensor"]):
    """A state under our names; what it lacks is told by its authors' name, as far as that can be known."""

    def __init__(self) -> None:
        super().__init__()
        self.authors: dict[str, str] = {}

    def __missing__(self, name: str) -> Tensor:
        raise KeyError(authors_name(name, self.authors))


def authors_name(name: str, known: Mapping[str, str]) -> str:
    """Return what a tensor is called in its authors' checkpoint, by what others are called there.

    Args:
        name: ours.
        known: the authors' names by ours, of the tensors that are there.

    Returns:
        The authors' name; ours, where no other of its layer is there, and none that differs in numbers alone.
    """
    if name in known:
        return known[name]
    layer, _, part = name.rpartition(".")
    for ours, theirs in known.items():
        sibling, _, other = ours.rpartition(".")
        if sibling == layer and theirs.endswith(f".{other}"):
            return f"{theirs.removesuffix(other)}{part}"
    for ours, theirs in known.items():
        if _NUMBER.sub("#", ours) != _NUMBER.sub("#", name):
            continue
        # Some count from another number than we do.
        numbers = [
            int(their) + int(wanted) - int(our)
            for their, wanted, our in zip(*map(_NUMBER.findall, (theirs, name, ours)), strict=False)
        ]
        if len(numbers) == len(_NUMBER.findall(theirs)) == len(_NUMBER.findall(ours)):
            return "".join(map("".join, zip(_NUMBER.split(theirs), [*map(str, numbers), ""], strict=True)))
    return name


def renamed_state(
    state: Mapping[str, Tensor],
    renames: Iterable[tuple[str, Replacement]],
    *,
    layers: Mapping[str, str] | None = None,
    computed: re.Pattern[str] | None = None,
) -> dict[str, Tensor]:
    """Return an authors' checkpoint under our names.

    Args:
        state: the authors' checkpoint.
        renames: as for `renamed`.
        layers: layers whose names, without "weight" and "bias", are replaced as a whole instead.
        computed: is found in the names of what is computed anew and so is left out.

    Returns:
        The state; asked for what it lacks, it raises a KeyError with the authors' name.
    """
    renames, layers = tuple(renames), layers or {}
    ours = _Renamed()
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if computed is None or not computed.search(key):
            name = f"{layers[layer]}.{kind}" if layer in layers else renamed(key, renames)
            ours[name] = value
            ours.authors[name] = key
    return ours


def depths_of(keys: Iterable[str], *, groups: str = "groups") -> tuple[int, ...]:
    """Return how many layers each group of a network has, by the names of its tensors.

    Args:
        keys: names, of which "groups.1.layers.3.norm.weight" is of group 1 and its fourth layer.
        groups: what the list of groups is called.
    """
    depths: list[int] = []
    for match in filter(None, map(re.compile(rf"{groups}\.(\d+)\.layers\.(\d+)\.").match, keys)):
        group, layer = int(match[1]), int(match[2])
        depths += [0] * (group + 1 - len(depths))
        depths[group] = max(depths[group], layer + 1)
    return tuple(depths)
