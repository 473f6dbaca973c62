"""Tables as text, and what their names say."""

from pathlib import Path

import pytest

from relume.core.errors import RelumeError
from relume.core.tables import csv_text, table_kind


def test_rows_are_written_under_their_headings():
    rows = [{"name": 'a "b", c', "seconds": 0.5}, {"seconds": None, "name": "d"}]
    assert csv_text(rows, ["name", "seconds"]) == 'name,seconds\n"a ""b"", c",0.5\nd,\n'
    assert csv_text([], ["name"]) == "name\n"


def test_the_name_tells_the_kind():
    assert table_kind(Path("a.CSV")) == "csv"
    assert table_kind(Path("a.json")) == "json"
    with pytest.raises(RelumeError, match=r"a\.txt: a table ends in \.csv or \.json"):
        table_kind(Path("a.txt"))
