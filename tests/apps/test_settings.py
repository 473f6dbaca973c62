"""`--set NAME=VALUE`: JSON where it is JSON, else text; whatever the value, no crash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relume.apps.settings import parse_settings
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


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000, '{"a"', "1e999"])
def test_values_too_long_or_too_deep_are_text_or_numbers(value):
    assert list(parse_settings([f"a={value}"])) == ["a"]


@given(st.text())
def test_any_text_is_a_value(value):
    assert list(parse_settings([f"a={value}"])) == ["a"]
