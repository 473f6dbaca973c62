"""Choices found by file: a module of a package that defines the agreed name is one of them.

A field of a config can so hold any config of a package: the next idea is the next
file, and no list is edited. A file of the package that lacks the name is a helper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from relume.core.errors import UnknownNameError

ATTRIBUTE = "CONFIG"


@cache
def found_by_file(package: str, attribute: str) -> tuple[Any, ...]:
    """Return what the modules of a package define under `attribute`, in the order of their names."""
    names = sorted(info.name for info in iter_modules(import_module(package).__path__))
    modules = (import_module(f"{package}.{name}") for name in names)
    return tuple(getattr(module, attribute) for module in modules if hasattr(module, attribute))


@dataclass(frozen=True)
class ChosenFrom:
    """Marks a field, `Annotated[Kind, ChosenFrom(package)]`, that holds a config of one of a package's files.

    Each file defines `CONFIG`, a config with `name: Literal[…]`; a file with several names is chosen by
    any of them. Plain values, `{"name": …, …}` or the name alone, become the chosen config.

    Attributes:
        package: dotted name of the package.
        kind: what is chosen, for messages.
    """

    package: str
    kind: str

    def names(self) -> list[str]:
        """Return every name that can be chosen; imports the package's files."""
        return sorted(name for config in found_by_file(self.package, ATTRIBUTE) for name in names_of(config))

    def named(self, name: object) -> type[BaseModel]:
        """Return the config that has this name; where a file has it too, no other file is imported.

        Raises:
            UnknownNameError: there is none; the nearest is named.
        """
        file = str(name).replace("-", "_")
        if file.isidentifier() and find_spec(f"{self.package}.{file}"):
            config = getattr(import_module(f"{self.package}.{file}"), ATTRIBUTE, None)
            if config is not None and name in names_of(config):
                return config
        for config in found_by_file(self.package, ATTRIBUTE):
            if name in names_of(config):
                return config
        raise UnknownNameError(self.kind, str(name), self.names())

    def class_of(self, values: object) -> type[BaseModel]:
        """Return the config that plain values (a mapping with "name", or the name) choose.

        Raises:
            UnknownNameError: no such name.
        """
        return self.named(values.get("name") if isinstance(values, Mapping) else values)

    def _validate(self, value: object) -> BaseModel:
        plain = {"name": value} if isinstance(value, str) else value
        named = getattr(plain, "name", None) if isinstance(plain, BaseModel) else None
        if named is None and not (isinstance(plain, Mapping) and "name" in plain):
            raise PydanticCustomError(
                "choice", "{problem}", {"problem": f"give a name: {', '.join(self.names())}"}
            )
        try:
            chosen = self.class_of(plain) if named is None else self.named(named)
        except UnknownNameError as error:
            raise PydanticCustomError("choice", "{problem}", {"problem": str(error)}) from error
        return chosen.model_validate(plain)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic how the field is read, and that it is written with all that the config holds."""
        del source, handler  # the field's own type is for readers and type checkers
        return core_schema.no_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda config, info: config.model_dump(mode=info.mode), info_arg=True
            ),
        )


def names_of(config: type[BaseModel]) -> tuple[str, ...]:
    """Return the values that a config's `name: Literal[…]` takes.

    Raises:
        TypeError: it has no such field.
    """
    field = config.model_fields.get("name")
    if field is None or get_origin(field.annotation) is not Literal:
        raise TypeError(f"{config.__module__}.{config.__name__} needs `name: Literal[…]` to be chosen by")
    return get_args(field.annotation)
