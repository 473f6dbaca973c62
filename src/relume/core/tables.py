"""Tables as files, .csv or .json by their name."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from relume.core.errors import RelumeError


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as CSV under a line of headings.

    Args:
        rows: their values by column; None is left empty.
        columns: all of them, in order.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table_kind(path: Path) -> Literal["csv", "json"]:
    """Return what a table of that name is.

    Raises:
        RelumeError: the name does not tell.
    """
    match path.suffix.lower():
        case ".csv":
            return "csv"
        case ".json":
            return "json"
    raise RelumeError(f"{path}: a table ends in .csv or .json; choose one of them")
