"""Frozen, keyword-only settings that refuse what they do not know.

Every config of the project (models, recipes, data) derives from `Config`, so a
misspelt key is refused with the nearest name, in one line, wherever it comes from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from relume.core.choices import ATTRIBUTE, ChosenFrom, found_by_file, names_of
from relume.core.errors import ConfigError, UnknownNameError, nearest


class Config(BaseModel):
    """Base of all settings: immutable, no unknown keys, values checked on construction."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_no_switches(cls, values: Any) -> Any:
        # YAML reads `yes` and `on` as true, which would count as 1.
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            if field and _holds_switch(value) and not _admits_switch(field.annotation):
                raise PydanticCustomError("switch", "no switch", {"field": name, "given": value})
        return values

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str) -> Self:
        """Build the config from plain values (JSON, YAML, `--set`).

        Args:
            values: nested mapping of plain values.
            where: what the values belong to, for the message ("recipe", "checkpoint x.safetensors").

        Raises:
            ConfigError: an unknown key (the nearest is named) or a value that does not fit.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(f"{where}: {_first_problem(cls, values, error)}") from error

    def override(self, changes: Mapping[str, Any], *, where: str) -> Self:
        """Return a copy with some values replaced: dotted keys, `{"train.steps": 100}`, or nested mappings.

        Where a field holds one of several configs (`core.choices`), its name alone or its `name` changes
        which; the rest then starts from that config's own values.

        Raises:
            ConfigError: a key that does not exist (the nearest is named) or a bad value.
        """
        values = self.model_dump(mode="json")
        _assign_all(type(self), values, changes, where=where)
        return self.parse(values, where=where)


def _holds_switch(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_switch, value)))


def _admits_switch(annotation: Any) -> bool:
    if annotation in (bool, Any, object) or isinstance(annotation, bool):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True  # which checks its own
    return any(_admits_switch(part) for part in get_args(annotation))


def told(problem: str) -> PydanticCustomError:
    """Return what a validator raises whose words say all, also what was given."""
    return PydanticCustomError("told", "{problem}", {"problem": problem})


def problem_of(error: ValidationError) -> str:
    """Tell in our own words why settings could not be made, `CFSRConfig(widht=8)` in somebody's Python.

    Args:
        error: what making them raised.
    """
    cls = next((each for each in _configs(Config) if each.__name__ == error.title), Config)
    return f"{error.title}: {_first_problem(cls, {}, error)}"


def _configs(cls: type[Config]) -> Iterator[type[Config]]:
    for inner in cls.__subclasses__():
        yield inner
        yield from _configs(inner)


def _assign_all(
    cls: type[BaseModel], values: dict[str, Any], changes: Mapping[str, Any], *, where: str, prefix: str = ""
) -> None:
    for key in changes:
        for parent in _parents(key):
            whole, inner = changes.get(parent), key.removeprefix(f"{parent}.")
            named = isinstance(whole, str) and inner == "name"
            if named or (isinstance(whole, Mapping) and inner.partition(".")[0] in whole):
                raise ConfigError(
                    f"{where}: {prefix}{key} is set twice, also within {prefix}{parent}; leave one out"
                )
    # Names first: which settings there are depends on what is chosen.
    for key in sorted(changes, key=lambda key: (key.count("."), key.rpartition(".")[2] != "name")):
        _assign(cls, values, f"{prefix}{key}", changes[key], where=where)


def _parents(key: str) -> Iterator[str]:
    """Yield `a` and `a.b` of the dotted key `a.b.c`."""
    parts = key.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts)))


def _assign(cls: type[BaseModel], values: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set a dotted key in nested plain values after checking each part against the config's fields."""
    *parents, last = key.split(".")
    place, owner, choice = values, cls, None
    for depth, part in enumerate(parents):
        if choice:
            _refuse_another_choices(choice, place, part, ".".join(parents[:depth]), path=key, where=where)
        _refuse_unknown(owner, part, root=cls, values=values, path=key, where=where)
        inner = _config_class(owner, part, place.get(part))
        if inner is None:
            raise ConfigError(
                f"{where}: {'.'.join(parents[: depth + 1])!r} holds one value, so {key!r} has no meaning"
            )
        choice = _choice(owner, part)
        if place.get(part) is None:
            place[part] = _default(owner, part)
        place, owner = place[part], inner
    if choice:
        _refuse_another_choices(choice, place, last, ".".join(parents), path=key, where=where)
    _refuse_unknown(owner, last, root=cls, values=values, path=key, where=where)
    if choice and last == "name":
        if _chosen(choice, value, where=f"{where}: {key}") is not owner:
            place.clear()
        place["name"] = value
    elif isinstance(value, Mapping) and _config_class(owner, last, place.get(last)):
        if place.get(last) is None:
            place[last] = _default(owner, last)
        _assign_all(cls, values, value, where=where, prefix=f"{key}.")
    elif _choice(owner, last) and isinstance(value, str):
        _assign(cls, values, f"{key}.name", value, where=where)
    else:
        place[last] = value


def _default(owner: type[BaseModel], field: str) -> dict[str, Any]:
    """Return what a config's field holds by default, as plain values; nothing where that is no config."""
    default = owner.model_fields[field].get_default(call_default_factory=True)
    return default.model_dump(mode="json") if isinstance(default, BaseModel) else {}


def _chosen(choice: ChosenFrom, name: object, *, where: str) -> type[BaseModel]:
    try:
        return choice.named(name)
    except UnknownNameError as error:
        raise ConfigError(f"{where}: {error}") from error


def _refuse_another_choices(
    choice: ChosenFrom, chosen: Mapping[str, Any], part: str, field: str, *, path: str, where: str
) -> None:
    """Refuse what is a setting of other choices than the one that is chosen.

    Args:
        choice: what there is to choose from.
        chosen: plain values of what is chosen.
        part: name of the setting.
        field: dotted key of the field that holds the choice.
        path: dotted key of what is set.
        where: what the values belong to.

    Raises:
        ConfigError: it is such a setting.
    """
    if "name" not in chosen or part in choice.class_of(chosen).model_fields:
        return
    rest = path.removeprefix(f"{field}.")
    having = [
        f"{field}={names_of(config)[0]}"
        for config in found_by_file(choice.package, ATTRIBUTE)
        if any(f"{key}.".startswith(f"{rest}.") for key in keys(config))
    ]
    if having:
        raise ConfigError(
            f"{where}: no setting {path!r} with {field}={chosen['name']}; choose {' or '.join(having)} first"
        )


def _refuse_unknown(
    owner: type[BaseModel],
    part: str,
    *,
    root: type[BaseModel],
    values: Mapping[str, Any],
    path: str,
    where: str,
) -> None:
    if part in owner.model_fields:
        return
    known = keys(root, values)
    # `steps` for `train.steps` is the commonest slip, so the last part is compared as well.
    tails = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    # What holds settings of its own is a name too.
    parents = path.rpartition(".")[0]
    here = {name: f"{parents}.{name}" if parents else name for name in owner.model_fields}
    tails |= {name: whole for name, whole in here.items() if name not in tails}
    # `lr` for `learning_rate` is the next.
    short, own = _initials(tails), None
    close = nearest(path, known) if "." in path else None
    if parents and path == f"{parents}.{part}":  # the parents are right, and would make all below them alike
        own, close = here.get(nearest(part, here) or "") or _initials(here).get(part), None
    close = own or tails.get(part) or short.get(part) or close or tails.get(nearest(part, tails) or "")
    advice = f"did you mean {close!r}?" if close else f"known: {', '.join(owner.model_fields)}"
    raise ConfigError(f"{where}: no setting {path!r}; {advice}")


def _initials(names: Mapping[str, str]) -> dict[str, str]:
    """Return what stands under names of several words, by these words' first letters."""
    return {"".join(word[0] for word in name.split("_")): at for name, at in names.items() if "_" in name}


def keys(cls: type[BaseModel], values: object = None, prefix: str = "") -> list[str]:
    """Return every dotted key that a config class accepts.

    Args:
        cls: the class.
        values: plain values of it, which say what is chosen where there is a choice; else its defaults do.
        prefix: put before each key.
    """
    found: list[str] = []
    for name in cls.model_fields:
        value = values.get(name) if isinstance(values, Mapping) else None
        inner = _config_class(cls, name, value)
        found += keys(inner, value, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


def _choice(owner: type[BaseModel], field: str) -> ChosenFrom | None:
    return next((mark for mark in owner.model_fields[field].metadata if isinstance(mark, ChosenFrom)), None)


def _config_class(owner: type[BaseModel], field: str, value: object) -> type[BaseModel] | None:
    """Return which config a field holds, or None where it holds none."""
    choice = _choice(owner, field)
    if choice:
        try:
            return choice.class_of(value)
        except UnknownNameError:  # nothing chosen, or nothing that exists: what stands there by default
            default = owner.model_fields[field].default
            return type(default) if isinstance(default, BaseModel) else None
    annotation = owner.model_fields[field].annotation
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _first_problem(cls: type[BaseModel], values: Mapping[str, Any], error: ValidationError) -> str:
    """Tell the first of a validation's problems in our own words."""
    problem = error.errors()[0]
    place, given = problem["loc"], problem["input"]
    path = ".".join(str(part) for part in place)
    where = path or "settings"
    match problem["type"]:
        case "extra_forbidden":
            return f"no setting {path!r}{_advice(cls, values, place)}"
        case "switch":
            within = ".".join(map(str, (*place, problem["ctx"]["field"])))
            return (
                f"{within}: a number or a word is wanted, not true or false (got {problem['ctx']['given']!r})"
            )
        case "choice" | "told":
            return f"{where}: {problem['msg']}"
        case "frozen_instance":
            return f"{where} cannot be changed; make a copy: override({{{where!r}: {given!r}}}, where=…)"
        case "missing":
            return f"{where} must be given, as nothing stands there by default"
        case "value_error":
            # What is wrong with several settings together is told without them all.
            got = "" if isinstance(given, Mapping | BaseModel) else f" (got {given!r})"
            return f"{where}: {problem['ctx']['error']}{got}"
        case "tuple_type" | "list_type" | "set_type" | "frozen_set_type":
            example = json.dumps([given], default=str)
            return f"{where} is a list, {example} if that is meant (got {given!r})"
        case "dict_type" | "mapping_type":
            return f'{where} is a mapping, such as {{"name": 1}} (got {given!r})'
        case "model_type" | "model_attributes_type" | "dataclass_type":
            owner = _config_at(cls, values, place)
            own = f" ({', '.join(owner.model_fields)})" if owner else ""
            return f"{where} holds settings of its own{own}, not one value (got {given!r})"
    return f"{where}: {problem['msg']} (got {given!r})"


def _advice(cls: type[BaseModel], values: Mapping[str, Any], place: Sequence[str | int]) -> str:
    """Return what to write in place of a setting that does not exist."""
    *parents, last = map(str, place)
    owner = _config_at(cls, values, place[:-1])
    close = nearest(last, owner.model_fields) if owner else None
    if close:
        return f"; did you mean {'.'.join([*parents, close])!r}?"
    # What stands in a list has no dotted key, so the keys would mislead.
    in_list = any(isinstance(part, int) for part in place)
    close = None if in_list else nearest(".".join(map(str, place)), keys(cls, values))
    if close:
        return f"; did you mean {close!r}?"
    return f"; known: {', '.join(owner.model_fields)}" if owner else ""


def _config_at(annotation: Any, value: object, place: Sequence[str | int]) -> type[BaseModel] | None:
    """Return which config stands at a place inside a value of a type, or None where none does.

    Args:
        annotation: the type, of a config's field or a config itself.
        value: its plain values, which say what is chosen where there is a choice.
        place: names of fields and numbers in lists.
    """
    if get_origin(annotation) is Annotated:
        choice = next((mark for mark in annotation.__metadata__ if isinstance(mark, ChosenFrom)), None)
        return _config_at(_class_or_none(choice, value) if choice else get_args(annotation)[0], value, place)
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        inner: Any = value
        if get_origin(annotation) in (tuple, list) and place:
            number, *place = place
            inner = value[number] if isinstance(value, Sequence) and isinstance(number, int) else None
        candidates = (_config_at(each, inner, place) for each in get_args(annotation))
        return next((found for found in candidates if found), None)
    if not place:
        return annotation
    name, *rest = place
    if name not in annotation.model_fields:
        return None
    field = annotation.model_fields[str(name)]
    below = value.get(name) if isinstance(value, Mapping) else None
    if any(isinstance(mark, ChosenFrom) for mark in field.metadata):
        return _config_at(_config_class(annotation, str(name), below), below, rest)
    return _config_at(field.annotation, below, rest)


def _class_or_none(choice: ChosenFrom, value: object) -> type[BaseModel] | None:
    try:
        return choice.class_of(value)
    except UnknownNameError:
        return None
