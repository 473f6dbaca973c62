"""Configs: frozen, strict, and helpful about slips."""

import re

import pytest
from pydantic import ValidationError

from relume.core.config import Config
from relume.core.errors import ConfigError, nearest


class Inner(Config):
    learning_rate: float = 1.0
    name: str = "adam"


class Outer(Config):
    steps: int = 10
    optimiser: Inner = Inner()
    place: Inner | None = None


def test_dotted_keys_change_a_copy():
    before = Outer()
    after = before.override({"optimiser.learning_rate": 0.5, "steps": 3}, where="recipe")
    assert (after.optimiser.learning_rate, after.optimiser.name, after.steps) == (0.5, "adam", 3)
    assert before == Outer()
    assert before.override({"place.name": "x"}, where="recipe").place == Inner(name="x")


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("stpes", "'steps'"),
        ("learning_rate", "'optimiser.learning_rate'"),
        ("lr", "'optimiser.learning_rate'"),
        ("optimiser.learning_rat", "'optimiser.learning_rate'"),
        ("optimizer.name", "'optimiser.name'"),
        ("qqqq", "known: steps, optimiser, place"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(key, advice):
    with pytest.raises(ConfigError) as error:
        Outer().override({key: 1}, where="recipe of x")
    assert str(error.value).startswith(f"recipe of x: no setting '{key}'")
    assert advice in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_values_are_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"^recipe: steps: .*integer.*'many'"):
        Outer().override({"steps": "many"}, where="recipe")
    with pytest.raises(ConfigError, match="holds one value"):
        Outer().override({"steps.x": 1}, where="recipe")
    with pytest.raises(ConfigError, match=r"no setting 'optimiser\.nam'; did you mean 'optimiser\.name'"):
        Outer.parse({"optimiser": {"nam": "x"}}, where="file")


def test_configs_cannot_be_changed():
    with pytest.raises(ValidationError):
        Outer().steps = 3


def test_nearest_ignores_case_and_gives_up():
    assert nearest("CFSR-X4", ["cfsr-x2", "cfsr-x4"]) == "cfsr-x4"
    assert nearest("zzz", ["cfsr-x2"]) is None


def test_a_slip_in_the_name_of_a_part_is_told():
    with pytest.raises(ConfigError, match="no setting 'optimsier'; did you mean 'optimiser'"):
        Outer().override({"optimsier": {}}, where="recipe")


class Sizes(Config):
    folders: tuple[str, ...] = ()
    patch: int = 8
    rates: tuple[float, ...] = ()
    on: bool = False
    either: bool | int = 1


class Twins(Config):
    optimiser: Inner = Inner()
    partner: Inner = Inner()


class WithFolders(Config):
    data: Sizes = Sizes()
    validation: Inner = Inner()
    folder: str | None = None


def test_the_nearest_is_looked_for_beside_the_slip_first():
    with pytest.raises(ConfigError, match=r"no setting 'data\.folder'; did you mean 'data\.folders'"):
        WithFolders().override({"data.folder": "x"}, where="recipe")
    with pytest.raises(ConfigError, match=r"no setting 'partner\.lr'; did you mean 'partner\.learning_rate'"):
        Twins().override({"partner.lr": 1}, where="recipe")


@pytest.mark.parametrize("name", ["patch", "rates", "folders"])
def test_true_is_no_number_and_no_word(name):
    value = True if name == "patch" else [True]
    says = re.escape(f"recipe: {name}: a number or a word is wanted, not true or false (got {value})")
    with pytest.raises(ConfigError, match=says):
        Sizes.parse({name: value}, where="recipe")
    with pytest.raises(ConfigError, match=rf"data\.{name}: .*not true or false"):
        WithFolders().override({f"data.{name}": value}, where="recipe")


def test_true_is_taken_where_it_has_a_meaning():
    assert Sizes.parse({"on": True, "either": False}, where="recipe") == Sizes(on=True, either=False)
