"""Recipes as YAML or Python: as YAML, a variant, and whatever differs from its own recipe.

    variant: cfsr-x2
    budget: gpu          # of the variant's recipe; "cpu" without it
    steps: 20000
    data:
      folders: [photos]  # from the folder in which the command runs
    degradation:
      name: bicubic

What `written` gives is such a file, complete. As Python, a file with `recipe()`, which returns a `Recipe`:

    from relume.recipes.cfsr import recipe as cfsr

    def recipe():
        return cfsr("cfsr-x2").override({"steps": 20000, "objective": "charbonnier"}, where=__file__)
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError

from relume.core.config import problem_of
from relume.core.errors import ConfigError, RelumeError
from relume.recipes.base import Recipe
from relume.recipes.runner import find_recipe

SUFFIXES = (".yaml", ".yml", ".py")


def read_recipe(path: Path, *, budget: str | None = None) -> Recipe:
    """Return the complete recipe that a YAML or Python file names; a Python file is run.

    Args:
        path: the file.
        budget: which of the variant's budgets a YAML file builds on; None takes the file's, or "cpu".

    Raises:
        ConfigError: the file cannot be read, is no YAML mapping, names no variant, or a setting does not
            exist (the nearest is named) or has a bad value; or a Python file fails, gives no recipe, or
            is asked for a budget.
        UnknownNameError: no such variant or budget.
    """
    if path.suffix.lower() == ".py":
        return _run(path, budget)
    values = _mapping(path)
    variant = values.pop("variant", None)
    if not isinstance(variant, str):
        raise ConfigError(f"{path} names no variant; begin it with a line like: variant: cfsr-x2")
    named = values.pop("budget", None)
    return find_recipe(variant, budget or ("cpu" if named is None else str(named))).override(
        values, where=str(path)
    )


def written(recipe: Recipe) -> str:
    """Return a complete recipe as YAML that `read_recipe` takes."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return text


def _run(path: Path, budget: str | None) -> Recipe:
    """Return what a Python file's `recipe()` returns.

    Raises:
        ConfigError: it cannot be read, fails, or gives no recipe.
    """
    if budget:
        raise ConfigError(f"{path} says itself which budget it takes; leave --budget out")
    text = _text(path)
    space: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}

    def load() -> object:
        code: CodeType = compile(text, str(path), "exec")
        exec(code, space)
        return space.get("recipe")

    function = _guarded(load, path)
    if not callable(function):
        raise ConfigError(f"{path} defines no recipe(); give it one that returns a Recipe")
    found = _guarded(function, path)
    if not isinstance(found, Recipe):
        raise ConfigError(f"{path}: recipe() returned {type(found).__name__}, not a Recipe")
    return found


def _guarded(call: Callable[[], object], path: Path) -> object:
    """Call what comes from a user's file.

    Raises:
        ConfigError: it failed; the line of the file and the error are named.
    """
    try:
        return call()
    except (Exception, SystemExit) as error:  # the file is the user's, and can fail in any way
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        raise ConfigError(f"{path}{f', line {line}' if line else ''}: {_problem(error)}") from error


def _problem(error: BaseException) -> str:
    match error:
        case RelumeError():
            return str(error)
        case ValidationError():
            return problem_of(error)
        case SyntaxError():
            return f"SyntaxError: {error.msg}"
        case SystemExit():
            return f"it ends the program (exit status {error.code}), where it should return a Recipe"
    return f"{type(error).__name__}: {error}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the recipe {path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the recipe {path} is no UTF-8 text; save it as such") from error


def _mapping(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        _refuse_odd_keys(yaml.compose(text, Loader=_Loader))
        values = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{path} is not YAML: {place}{problem}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no recipe; it holds lines like: variant: cfsr-x2")
    return values


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain words as YAML 1.2 does: 1.1, PyYAML's, takes `yes` for true, 010 for 8 and 1:30 for 90."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _refuse_odd_keys(node: yaml.Node | None) -> None:
    """Refuse a key that stands twice, of which YAML would silently take the last, or that is no word.

    Raises:
        yaml.MarkedYAMLError: there is one.
    """
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_odd_keys(value)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if not key.tag.endswith((":str", ":merge")):
            shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise yaml.MarkedYAMLError(
                problem=f"{shown} is no name of a setting", problem_mark=key.start_mark
            )
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
        seen.add(key.value)
        _refuse_odd_keys(value)
