"""Where files lie is the user's own affair: what is passed on names a set, not the folders above it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def public_name(path: Path) -> str:
    """Return the last two parts of a full path: which set or run it is."""
    return "/".join(path.resolve().parts[-2:])


def without_places(value: Any) -> Any:
    """Return plain values with every full path in them shortened to its last two parts."""
    if isinstance(value, Mapping):
        return {name: without_places(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    return public_name(Path(value)) if isinstance(value, str) and Path(value).is_absolute() else value
