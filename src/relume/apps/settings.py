"""Settings given on the command line as NAME=VALUE."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from relume.core.errors import ConfigError


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Turn `NAME=VALUE` texts into plain values: JSON where it is JSON, else text.

    Raises:
        ConfigError: no `=`, an empty name, or a name given twice.
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
        except (ValueError, RecursionError):  # beside what is no JSON: numbers too long, lists too deep
            values[name] = value
    return values
