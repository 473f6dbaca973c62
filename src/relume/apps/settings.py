"""Settings as they are written on the command line: NAME=VALUE, and amounts of memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from relume.core.errors import ConfigError

if TYPE_CHECKING:
    from relume.data.degradations.base import DegradationConfig


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Turn `NAME=VALUE` texts into plain values: JSON where it is JSON, else text.

    Raises:
        ConfigError: no `=`, an empty name, a name given twice, or a list or mapping that is no JSON.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes NAME=VALUE, not {text!r}")
        if name in values:
            raise ConfigError(f"--set gives {name} twice")
        try:
            values[name] = json.loads(value)
        except (ValueError, RecursionError) as error:  # beside what is no JSON: numbers too long
            if value.lstrip().startswith(("[", "{")):
                shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
                raise ConfigError(
                    f"--set {name}: {shown} begins as JSON but is none ({_reason(error)}); text in it stands "
                    f'in double quotes, as in ["l1", 2]'
                ) from error
            values[name] = value
    return values


_SHOWN = 100
"""Characters of a value that a message shows."""


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, character {error.pos + 1}"
    return "too deep" if isinstance(error, RecursionError) else "a number of too many digits"


def parse_degradation(name: str, settings: Iterable[str]) -> DegradationConfig:
    """Return a degradation by its name, with what `--set` says of it.

    Raises:
        UnknownNameError: no such degradation; the nearest is named.
        ConfigError: a setting does not fit it.
    """
    from relume.core.choices import ChosenFrom

    chosen: type[DegradationConfig] = ChosenFrom("relume.data.degradations", "degradation").named(name)  # type: ignore[assignment]  # a package of degradations holds no other configs
    where = f"degradation {name}"
    return chosen.parse({"name": name}, where=where).override(parse_settings(settings), where=where)


_UNITS = {"b": 1} | {
    f"{prefix}{infix}b": (1024 if infix else 1000) ** power
    for power, prefix in enumerate("kmgtp", 1)
    for infix in ("", "i")
}


def parse_bytes(text: str) -> int:
    """Read an amount of memory: "2GiB" (binary), "1.5 GB" (decimal), "500000000 B".

    Raises:
        ConfigError: it is not written so; a number alone is not taken, as it could mean anything.
    """
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([a-zA-Z]+)\s*", text, re.ASCII)
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ConfigError(f"an amount of memory is written like 2GiB, 1.5GB or 800MiB, not {text!r}")
    count = int(float(found[1]) * unit)
    if not 1 <= count < 2**63:
        raise ConfigError(f"{text} of memory is out of range; give something like 2GiB")
    return count
