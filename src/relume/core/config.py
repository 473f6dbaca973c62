"""Frozen, keyword-only settings that refuse what they do not know.

Every config of the project (models, recipes, data) derives from `Config`, so a
misspelt key is refused with the nearest name, in one line, wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from relume.core.errors import ConfigError, nearest


class Config(BaseModel):
    """Base of all settings: immutable, no unknown keys, values checked on construction."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str) -> Self:
        """Build the config from plain values (JSON, `--set`).

        Args:
            values: nested mapping of plain values.
            where: what the values belong to, for the message ("recipe", "checkpoint x.safetensors").

        Raises:
            ConfigError: an unknown key (the nearest is named) or a value that does not fit.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(f"{where}: {_first_problem(cls, error)}") from error

    def override(self, changes: Mapping[str, Any], *, where: str) -> Self:
        """Return a copy with dotted keys replaced, e.g. `{"train.steps": 100}`.

        Raises:
            ConfigError: a key that does not exist (the nearest is named) or a bad value.
        """
        values = self.model_dump(mode="json")
        for key, value in changes.items():
            _assign(type(self), values, key, value, where=where)
        return self.parse(values, where=where)


def _assign(cls: type[BaseModel], values: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set a dotted key in nested plain values after checking each part against the config's fields."""
    *parents, last = key.split(".")
    place, owner = values, cls
    for depth, part in enumerate(parents):
        _refuse_unknown(owner, part, known_root=cls, path=key, where=where)
        inner = _config_class(owner, part)
        if inner is None:
            raise ConfigError(
                f"{where}: {'.'.join(parents[: depth + 1])!r} holds one value, so {key!r} has no meaning"
            )
        if place[part] is None:
            place[part] = {}
        place, owner = place[part], inner
    _refuse_unknown(owner, last, known_root=cls, path=key, where=where)
    place[last] = value


def _refuse_unknown(
    owner: type[BaseModel], part: str, *, known_root: type[BaseModel], path: str, where: str
) -> None:
    if part in owner.model_fields:
        return
    known = keys(known_root)
    # `steps` for `train.steps` is the commonest slip, so the last part is compared as well.
    tails = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    close = nearest(path, known) if "." in path else None
    # `lr` for `learning_rate` is the next.
    initials = {
        "".join(word[0] for word in tail.split("_")): name for tail, name in tails.items() if "_" in tail
    }
    close = tails.get(part) or initials.get(part) or close or tails.get(nearest(part, tails) or "")
    advice = f"did you mean {close!r}?" if close else f"known: {', '.join(owner.model_fields)}"
    raise ConfigError(f"{where}: no setting {path!r}; {advice}")


def keys(cls: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every dotted key that a config class accepts."""
    found: list[str] = []
    for name in cls.model_fields:
        inner = _config_class(cls, name)
        found += keys(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


def _config_class(owner: type[BaseModel], field: str) -> type[BaseModel] | None:
    annotation = owner.model_fields[field].annotation
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _first_problem(cls: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = nearest(path, keys(cls))
        return f"no setting {path!r}" + (f"; did you mean {close!r}?" if close else "")
    return f"{path or 'settings'}: {problem['msg']} (got {problem['input']!r})"
