"""Recipes as YAML: a variant, and whatever differs from its own recipe.

    variant: cfsr-x2
    budget: gpu          # of the variant's recipe; "cpu" without it
    steps: 20000
    data:
      folders: [photos]  # from the folder in which the command runs
    degradation:
      name: bicubic

What `written` gives is such a file, complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from relume.core.errors import ConfigError
from relume.recipes.base import Recipe
from relume.recipes.runner import find_recipe

SUFFIXES = (".yaml", ".yml")


def read_recipe(path: Path, *, budget: str | None = None) -> Recipe:
    """Return the complete recipe that a YAML file names.

    Args:
        path: the file.
        budget: which of the variant's budgets it builds on; None takes the file's, or "cpu".

    Raises:
        ConfigError: the file cannot be read, is no YAML mapping, names no variant, or a setting does not
            exist (the nearest is named) or has a bad value.
        UnknownNameError: no such variant or budget.
    """
    values = _mapping(path)
    variant = values.pop("variant", None)
    if not isinstance(variant, str):
        raise ConfigError(f"{path} names no variant; begin it with a line like: variant: cfsr-x2")
    named = values.pop("budget", "cpu")
    return find_recipe(variant, budget or str(named)).override(values, where=str(path))


def written(recipe: Recipe) -> str:
    """Return a complete recipe as YAML that `read_recipe` takes."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return text


def _mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_twice(yaml.compose(text, Loader=yaml.SafeLoader))
        values = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the recipe {path} is no UTF-8 text; save it as such") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{path} is not YAML: {place}{problem}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path} is no recipe; it holds lines like: variant: cfsr-x2")
    return values


def _refuse_twice(node: yaml.Node | None) -> None:
    """Refuse a key that stands twice, of which YAML would silently take the last.

    Raises:
        yaml.MarkedYAMLError: there is one.
    """
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
        seen.add(str(key.value))
        _refuse_twice(value)
