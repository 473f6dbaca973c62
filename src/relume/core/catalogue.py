"""What this project holds, read from a generated file so that listing it imports no model.

`catalogue.json` is written by `python -m relume.apps.catalogue` from the cards,
variants, recipes and shipped weights that lie in the source tree; a test says
when it is stale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from relume.core.errors import UnknownNameError

PACKAGE = Path(__file__).resolve().parent.parent
FILE = PACKAGE / "catalogue.json"
SHAPES = PACKAGE / "shapes.json"
"""How many weights of which shape each variant has; tells what a file of no system comes near to."""
WEIGHTS = PACKAGE / "weights"
TRIALS = PACKAGE / "trials"
"""Short trainings whose weights are not shipped, `VARIANT.json` each: what they reached, and how."""
ROOT = PACKAGE.parent.parent
"""Of the source tree, where the package lies in one."""
FIGURES = "docs/images/models"
"""Where, in the source tree, pictures of networks are."""


@dataclass(frozen=True, kw_only=True)
class CatalogueVariant:
    """One named variant.

    Attributes:
        name: its name.
        system: the system it belongs to.
        scale: output pixels for each input pixel along a side.
        cubes: whether it takes hyperspectral cubes, rather than pictures.
        parameters: how many, in the form that is used.
        budgets: steps that its recipe asks for, by the budget's name; empty without a recipe.
        weights: file name of the weights shipped for it, or None.
        measured: what was measured with those weights, or else with those of a short training.
        trained: how these came about; empty where there are none.
    """

    name: str
    system: str
    scale: int
    cubes: bool
    parameters: int
    budgets: Mapping[str, int]
    weights: str | None
    measured: tuple[Mapping[str, Any], ...]
    trained: Mapping[str, Any]

    def figures(self, dataset: str, protocol: str = "sr-y") -> Mapping[str, Any] | None:
        """Return what was measured on a set under a protocol, or None."""
        for entry in self.measured:
            if (entry["set"], entry["protocol"]) == (dataset, protocol):
                return entry
        return None

    @property
    def kind(self) -> str:
        """What it takes, in a word."""
        return "cube" if self.cubes else "picture"

    @property
    def weights_path(self) -> Path | None:
        """Where the shipped weights lie, or None."""
        return WEIGHTS / self.weights if self.weights else None


@dataclass(frozen=True, kw_only=True)
class System:
    """One published system.

    Attributes:
        name: its short name.
        module: dotted name of its home.
        recipe: dotted name of its recipe's file, or None.
        card: its card as plain values.
        variants: its variants by name.
    """

    name: str
    module: str
    recipe: str | None
    card: Mapping[str, Any]
    variants: Mapping[str, CatalogueVariant]


def figure_of(system: str) -> str:
    """Return where, in the source tree, the picture of a system's network is."""
    return f"{FIGURES}/{system}.svg"


@cache
def systems() -> Mapping[str, System]:
    """Return every system by its short name."""
    found = {}
    for entry in json.loads(FILE.read_text(encoding="utf-8"))["systems"]:
        variants = {
            name: CatalogueVariant(
                name=name, system=entry["name"], **{**values, "measured": tuple(values["measured"])}
            )
            for name, values in entry["variants"].items()
        }
        found[entry["name"]] = System(**{**entry, "variants": variants})
    return found


def variants() -> dict[str, CatalogueVariant]:
    """Return every variant by its name."""
    return {name: variant for system in systems().values() for name, variant in system.variants.items()}


def families() -> dict[str, dict[int, CatalogueVariant]]:
    """Return the variants that differ in scale alone, by scale, under the name that they share.

    That is a variant's name without its scale: cfsr-x2 and cfsr-x4 are of "cfsr", cfsr-x4-photo is of
    "cfsr-photo". Only those with weights count where a family has such. A system whose variants are of one
    family of another name is that family under its own name too.
    """
    found: dict[str, dict[int, CatalogueVariant]] = {}
    for system in systems().values():
        own: dict[str, dict[int, CatalogueVariant]] = {}
        for variant in system.variants.values():
            family = variant.name.replace(f"-x{variant.scale}", "", 1)
            own.setdefault(family, {})[variant.scale] = variant
        if len(own) == 1:
            own.setdefault(system.name, *own.values())
        found |= {name: _shipped(family) for name, family in own.items()}
    return found


def is_family(name: str) -> bool:
    """Tell whether a name stands for several variants, or for a system, rather than for one variant."""
    return name not in variants() and (name in families() or name in systems())


def _shipped(family: dict[int, CatalogueVariant]) -> dict[int, CatalogueVariant]:
    """Return the members with weights, or all where none has them."""
    return {scale: each for scale, each in family.items() if each.weights is not None} or family


def find_variant(name: str) -> CatalogueVariant:
    """Return the variant of that name.

    Raises:
        UnknownNameError: there is none; the nearest is named.
    """
    known = variants()
    if name not in known:
        raise UnknownNameError("model", name, known, hint="(list them: relume models --all)")
    return known[name]
