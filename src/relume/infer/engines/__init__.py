"""What executes a model, one file an engine; `engines()` finds the files."""

from __future__ import annotations

from functools import cache

from relume.core.choices import found_by_file
from relume.infer.engines.base import Engine


@cache
def engines() -> dict[str, type[Engine]]:
    """Return every engine by its name, whether it can be used here or not."""
    found: tuple[type[Engine], ...] = found_by_file(__name__, "ENGINE")
    return {engine.name: engine for engine in sorted(found, key=lambda engine: engine.name)}
