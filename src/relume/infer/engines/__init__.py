"""What executes a model, one file an engine; `engines()` finds the files."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from relume.infer.engines.base import Engine

_SHARED = ("base", "onnx_file")


@cache
def engines() -> dict[str, type[Engine]]:
    """Return every engine by its name, whether it can be used here or not."""
    found = (
        import_module(f"{__name__}.{module.name}").ENGINE
        for module in iter_modules(__path__)
        if module.name not in _SHARED
    )
    return {engine.name: engine for engine in sorted(found, key=lambda engine: engine.name)}
