"""Write what can be generated from the source tree: `python -m relume.apps.catalogue [--check]`.

That is `catalogue.json` and `shapes.json`, which the command line reads, and `docs/models.md` with its
pictures, for people.
With `--trial` and weights files that `relume evaluate --record` measured, what their headers tell of a short
training is kept first, as `trials/VARIANT.json`, without the weights.
"""

from __future__ import annotations

import json
import pkgutil
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import relume
from relume.apps import models_page
from relume.core.catalogue import FIGURES, FILE, ROOT, SHAPES, TRIALS, WEIGHTS, figure_of
from relume.core.checkpoints import Header, read_header
from relume.core.errors import RelumeError
from relume.core.files import write_text
from relume.models import zoo
from relume.models.recognition import forms
from relume.nn.network import Network
from relume.nn.surgery import apply_steps

PAGE = ROOT / "docs" / "models.md"
_UNTRAINED: dict[str, Any] = {"measured": [], "trained": {}}
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
    recipe = f"relume.recipes.{name}" if name in recipes else None
    return {
        "name": name,
        "module": module.__name__,
        "recipe": recipe,
        "card": module.CARD.to_json(),
        "variants": {
            name: {
                **_sketch(module.__name__, name)[0],
                "parameters": variant.parameters,
                "budgets": _budgets(recipe, name),
                **_weights(name),
            }
            for name, variant in getattr(module, "VARIANTS", {}).items()
        },
    }


def _budgets(recipe: str | None, variant: str) -> dict[str, int]:
    """Return how many steps each budget of a variant's recipe has."""
    if recipe is None:
        return {}
    home = import_module(recipe)
    return {budget: home.recipe(variant, budget).steps for budget in home.BUDGETS}


@cache
def _sketch(module: str, variant: str) -> tuple[dict[str, Any], Counter[str]]:
    """Return what a variant takes and gives, and how many weights of which shape it has in use."""
    with torch.device("meta"):  # nobody looks at the weights, and some are gigabytes
        network = _network(module, variant)
    contract = network.contract
    return {"scale": contract.scale, "cubes": contract.of_cubes}, forms(network.state_dict())


def _shapes(systems: Iterable[dict[str, Any]]) -> str:
    """Return the shapes of every variant's weights, a line each."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(_sketch(system['module'], name)[1], sort_keys=True)}"
        for system in systems
        for name in system["variants"]
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _weights(variant: str) -> dict[str, Any]:
    path = WEIGHTS / f"{variant}.safetensors"
    header = read_header(path) if path.exists() else None
    if header is None:
        trial = TRIALS / f"{variant}.json"
        return {"weights": None, **(json.loads(trial.read_text("utf-8")) if trial.exists() else _UNTRAINED)}
    return {"weights": path.name, **_told(header)}


def _told(header: Header) -> dict[str, Any]:
    trained = {**header.trained, "start": (header.recipe or {}).get("start")}
    return {"measured": list(header.measured), "trained": trained}


def keep_trial(weights: Path) -> Path:
    """Write what a weights file's header tells of its training and figures, and return where.

    Raises:
        RelumeError: it cannot be read, was not trained by a recipe, or was not measured.
    """
    header = read_header(weights)
    if header is None or not header.recipe or not header.measured:
        raise RelumeError(
            f"{weights} is not a training's result with figures; train it, and measure it with "
            "relume evaluate WEIGHTS --record"
        )
    variant = str(header.recipe["variant"])
    usual = zoo.variant(variant).config.model_dump(mode="json")
    network = {name: value for name, value in header.recipe["network"].items() if value != usual.get(name)}
    told = _told(header)
    told["trained"] |= {"network": network}
    path = TRIALS / f"{variant}.json"
    write_text(path, json.dumps(told, indent=1) + "\n")
    return path


def _network(module: str, variant: str) -> Network:
    """Build a variant in the form that is used; its system need not be in the catalogue yet."""
    home = import_module(module)
    chosen = home.VARIANTS[variant]
    network: Network = home.NETWORK(chosen.config)
    return apply_steps(network, chosen.steps)


def generated() -> dict[Path, str]:
    """Return every generated file's text by its place: the catalogue, the page and the pictures on it."""
    catalogue = build()
    systems = json.loads(catalogue)["systems"]
    drawn = {
        ROOT / figure_of(system["name"]): models_page.picture(system, _network)
        for system in systems
        if system["variants"]
    }
    return {FILE: catalogue, SHAPES: _shapes(systems), PAGE: models_page.page(systems), **drawn}


def superfluous(texts: Iterable[Path]) -> list[Path]:
    """Return pictures of networks that are there and no longer drawn."""
    return sorted(set((ROOT / FIGURES).glob("*.svg")) - set(texts))


def main() -> None:
    """Write the files, or with `--check` say which of those that are there is stale."""
    if "--trial" in sys.argv[1:]:
        for name in sys.argv[sys.argv.index("--trial") + 1 :]:
            try:
                print(f"written: {keep_trial(Path(name)).name}")
            except RelumeError as error:
                sys.exit(f"error: {error}")
    texts = generated()
    if "--check" in sys.argv[1:]:
        for path in superfluous(texts):
            sys.exit(f"{path.name} shows no network any more; run: python -m {__spec__.name}")
        for path, text in texts.items():
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                sys.exit(f"{path.name} is stale; run: python -m {__spec__.name}")
        return
    for path in superfluous(texts):
        path.unlink()
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        write_text(path, text)
        print(f"written: {path.name} (relume {relume.__version__})")


if __name__ == "__main__":
    main()
