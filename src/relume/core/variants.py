"""Named configs of a model, and what an authors' checkpoint turns into."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relume.core.config import Config

if TYPE_CHECKING:
    from torch import Tensor


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
    """An authors' checkpoint in our terms: config, state under our keys, surgery done before saving."""

    config: Config
    state: Mapping[str, Tensor]
    steps: tuple[str, ...] = ()


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
