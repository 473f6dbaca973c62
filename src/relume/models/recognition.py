"""Why a weights file is refused: what it comes nearest to, and what of it does not fit.

How near a file comes to a variant is told by the shapes of its weights, which `shapes.json` has of every
variant: `python -m relume.apps.catalogue` writes it. Names are left out of this, as each code has its own.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from torch import Tensor

from relume.core.catalogue import SHAPES, variants
from relume.core.errors import ConfigError
from relume.core.variants import Official, authors_name

BREAKING = (
    ArithmeticError, AttributeError, ConfigError, LookupError, RuntimeError, TypeError, ValueError
)  # fmt: skip
"""What reading a file raises that has a system's marks, and then lacks something or has another shape."""

_MOST_TRIED = 64
# A file must be nearly all of the system that is named as its own but for some keys.
_MOST_LEFT_OUT = 0.25
_CLOSE = 0.5
_SUBPIXELS = (1, 2, 3, 4, 8)
_LONGEST = 80


@dataclass(frozen=True)
class Likeness:
    """How near a file comes to a variant.

    Attributes:
        variant: its name.
        alike: how many of the file's weights have a shape of the variant's.
        file: how many weights the file has.
        whole: how many the variant has.
    """

    variant: str
    alike: int
    file: int
    whole: int

    @property
    def share(self) -> float:
        """The share alike of whichever has more weights, 0..1."""
        return self.alike / max(self.file, self.whole, 1)


def forms(state: Mapping[str, Tensor]) -> Counter[str]:
    """Count the weights of each shape, such as "3x3x64": of the sides longer than 1, in order of size.

    So a layer has one shape however its code stores it, and those of fewer than two sides, which are alike in
    many networks, do not count.
    """
    sides = ([side for side in sorted(tensor.shape) if side > 1] for tensor in state.values())
    return Counter("x".join(map(str, each)) for each in sides if len(each) > 1)


@cache
def _shapes() -> Mapping[str, Mapping[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(SHAPES.read_text(encoding="utf-8"))
    return found


def likest(state: Mapping[str, Tensor], systems: Collection[str]) -> Likeness | None:
    """Return the variant of some systems that a file comes nearest to, None where no weight is alike."""
    file = forms(state)
    best: Likeness | None = None
    for name, each in variants().items():
        if each.system in systems and name in _shapes():
            shapes = Counter(_shapes()[name])
            found = Likeness(name, (file & shapes).total(), file.total(), shapes.total())
            if found.alike and (best is None or found.share > best.share):
                best = found
    return best


def nature(state: Mapping[str, Tensor], homes: Mapping[str, ModuleType]) -> str:
    """Return, as a clause, what a file of no known architecture is, or is closest to.

    Args:
        state: its tensors.
        homes: the systems' files, by name.
    """
    if (channels := _judged_channels(state)) is not None:
        return (
            f"it seems to be a discriminator, which takes {channels} channels and gives one value; "
            "take its generator's file"
        )
    if (found := _but_for(state, homes)) is not None:
        name, keys = found
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        return f"the closest is {name}, which has no {keys[0][:_LONGEST]}{more}"
    begin = f"its keys begin with {', '.join(list(state)[:3])[:_LONGEST]}"
    near = likest(state, homes)
    if near is None:
        return f"no weight of it has a shape of any; {begin}"
    if near.share < _CLOSE:
        shown = f"the closest is far: {near.variant} has but {near.alike} of the file's {near.file} weights"
    else:
        shown = f"the closest is {near.variant}, which has {near.alike} of the file's {near.file} weights"
    return f"{shown}, by their shapes; {begin}"


def likest_of(broken: Mapping[str, Exception], state: Mapping[str, Tensor]) -> str:
    """Return, as a clause, what a file looks like that has the marks of systems and cannot be read as one.

    Args:
        broken: what reading it as each raised, by the system's name; of several the nearest is told.
        state: its tensors.
    """
    near = likest(state, broken)
    system = variants()[near.variant].system if near else next(iter(broken))
    error = broken[system]
    if isinstance(error, KeyError):
        lacks = f"has no {str(error.args[0])[:_LONGEST]}"
    elif isinstance(error, ConfigError):
        lacks = f"shows settings that cannot be: {error}"
    else:
        lacks = "has tensors of shapes that do not go together"
    there = ""
    if near and near.share >= _CLOSE:
        there = f" ({near.alike} of the {near.whole} weights of {near.variant} are there, by their shapes)"
    return f"looks like {system} but {lacks}{there}"


def misfit(network: Mapping[str, Tensor], ours: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> str:
    """Return, as a clause, what of a file does not fit a network.

    Args:
        network: the network's state.
        ours: the file's tensors under our names.
        file: the file's tensors under its own.
    """
    places = {tensor.data_ptr(): key for key, tensor in file.items() if tensor.numel()}
    known = {name: places[tensor.data_ptr()] for name, tensor in ours.items() if tensor.data_ptr() in places}

    def shown(names: list[str]) -> str:
        return f"{'' if len(names) == 1 else 'first '}{authors_name(names[0], known)[:_LONGEST]}"

    missing = [name for name in network if name not in ours]
    unknown = [name for name in ours if name not in network]
    other = [name for name in network if name in ours and network[name].shape != ours[name].shape]
    parts = []
    if missing:
        parts.append(f"{_keys(missing)} missing ({shown(missing)})")
    if unknown:
        parts.append(f"{_keys(unknown)} not known ({shown(unknown)})")
    if other:
        shapes = " instead of ".join(_shape(state[other[0]]) for state in (ours, network))
        parts.append(f"{_keys(other)} of another shape ({shown(other)}: {shapes})")
    return ", ".join(parts)


def _keys(names: list[str]) -> str:
    return "1 key is" if len(names) == 1 else f"{len(names)} keys are"


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one value"


def _judged_channels(state: Mapping[str, Tensor]) -> int | None:
    """Return how many channels it takes to give one value, None where this is no discriminator.

    A generator gives as many channels as it takes, or as many for each sub-pixel.
    """
    weights = [tuple(tensor.shape) for tensor in state.values() if tensor.ndim in (2, 4)]
    convolutions = [shape for shape in weights if len(shape) == 4]
    if not any(shape[0] == 1 and shape[1] > 3 for shape in weights):
        return None
    channels = 3
    taken = any(shape[1] == channels for shape in convolutions)
    given = {channels * factor**2 for factor in _SUBPIXELS}
    return channels if taken and not any(shape[0] in given for shape in convolutions) else None


def _but_for(state: Mapping[str, Tensor], homes: Mapping[str, ModuleType]) -> tuple[str, list[str]] | None:
    """Return the system whose the file would be without some keys of one kind, and these."""
    kinds: dict[str, list[str]] = {}
    for key in state:
        for kind in {re.sub(r"\d+", "#", key), key.partition(".")[0]}:
            kinds.setdefault(kind, []).append(key)
    few = [keys for keys in kinds.values() if len(keys) <= _MOST_LEFT_OUT * len(state)]
    for keys in sorted(few, key=len)[:_MOST_TRIED]:
        rest = {key: value for key, value in state.items() if key not in keys}
        for name, home in homes.items():
            try:
                official: Official | None = home.from_official(rest)
            except BREAKING:
                continue
            if official is not None:
                return name, keys
    return None
