"""What is written on the command line: `--set NAME=VALUE` and amounts of memory; whatever it is, no crash."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relume.apps.settings import parse_bytes, parse_settings
from relume.core.errors import ConfigError


def test_values_are_json_or_text():
    texts = ["a=1", "b.c=[1, 2]", "d=adam", "e=", "f=a=b", "g=null", 'h="1"']
    assert parse_settings(texts) == {
        "a": 1, "b.c": [1, 2], "d": "adam", "e": "", "f": "a=b", "g": None, "h": "1"
    }  # fmt: skip


@pytest.mark.parametrize("texts", [["a"], ["=1"], [""], ["a=1", "a=2"]])
def test_what_is_no_setting_is_refused(texts):
    with pytest.raises(ConfigError, match="--set"):
        parse_settings(texts)


@pytest.mark.parametrize("value", ["9" * 5000, "1e999", "a[1]", '"a'])
def test_values_too_long_are_text_or_numbers(value):
    assert list(parse_settings([f"a={value}"])) == ["a"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('["l1",', '["l1", begins as JSON but is none (Expecting value, character 7); text in it stands'),
        ("[photos]", "(Expecting value, character 2); text in it stands in double quotes, as in"),
        (' {"a"', "(Expecting ':' delimiter, character 6)"),
        ("[" * 100_000, "[[… begins as JSON but is none (too deep)"),
        (f"[{'9' * 5000}]", "(a number of too many digits)"),
    ],
)
def test_lists_and_mappings_that_are_no_json_are_refused(value, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)) as error:
        parse_settings([f"a.b={value}"])
    assert str(error.value).startswith("--set a.b: ")
    assert len(str(error.value)) < 300


@given(st.text().filter(lambda text: not text.lstrip().startswith(("[", "{"))))
def test_any_other_text_is_a_value(value):
    assert list(parse_settings([f"a={value}"])) == ["a"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2GiB", 2 * 2**30), ("2 gib", 2 * 2**30), ("1.5GB", 1_500_000_000), ("800MiB", 800 * 2**20),
        ("512KB", 512_000), ("70000000 B", 70_000_000), ("1TiB", 2**40),
    ],
)  # fmt: skip
def test_amounts_of_memory(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "2", "GiB", "2 G", "-1GiB", "1e9B", "٢GiB", "0GiB", "0.1B", "9" * 18 + "TB"]
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ConfigError, match="2GiB"):
        parse_bytes(text)


@given(st.text(st.sampled_from("019.kKMGTiIbB x"), max_size=8))
def test_any_text_is_an_amount_or_refused(text):
    with contextlib.suppress(ConfigError):
        assert parse_bytes(text) > 0
