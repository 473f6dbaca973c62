"""Write `catalogue.json` from the source tree: `python -m relume.apps.catalogue [--check]`."""

from __future__ import annotations

import json
import pkgutil
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import relume
from relume.core.catalogue import FILE, WEIGHTS
from relume.core.checkpoints import read_header
from relume.core.files import whole

_ROOMS = ("models", "data", "measures", "nn", "train", "compress", "infer", "insight")


def build() -> str:
    """Return the catalogue as text: every file of the project that carries a card, sorted by name."""
    entries = [_entry(module) for module in _modules() if hasattr(module, "CARD")]
    entries.sort(key=lambda entry: str(entry["name"]))
    return json.dumps({"systems": entries}, indent=1, ensure_ascii=False) + "\n"


def _modules() -> list[ModuleType]:
    found = []
    for room in _ROOMS:
        package = import_module(f"relume.{room}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            found.append(import_module(info.name))
    return found


def _entry(module: ModuleType) -> dict[str, Any]:
    name = module.CARD.name
    recipes = {info.name for info in pkgutil.iter_modules(import_module("relume.recipes").__path__)}
    return {
        "name": name,
        "module": module.__name__,
        "recipe": f"relume.recipes.{name}" if name in recipes else None,
        "card": module.CARD.to_json(),
        "variants": {
            name: {
                "scale": variant.config.scale,
                "parameters": variant.parameters,
                **_weights(name),
            }
            for name, variant in getattr(module, "VARIANTS", {}).items()
        },
    }


def _weights(variant: str) -> dict[str, Any]:
    path = WEIGHTS / f"{variant}.safetensors"
    header = read_header(path) if path.exists() else None
    if header is None:
        return {"weights": None, "measured": [], "trained": {}}
    return {"weights": path.name, "measured": list(header.measured), "trained": dict(header.trained)}


def main() -> None:
    """Write the catalogue, or with `--check` say whether the one that is there is stale."""
    text = build()
    if "--check" in sys.argv[1:]:
        if not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
            sys.exit(f"{FILE.relative_to(FILE.parent.parent)} is stale; run: python -m {__spec__.name}")
        return
    with whole(FILE) as partial:
        partial.write_text(text, encoding="utf-8")
    print(f"{FILE.name}: {len(json.loads(text)['systems'])} systems (relume {relume.__version__})")


if __name__ == "__main__":
    main()
