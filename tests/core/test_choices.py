"""Choices by file: a module that defines the name is one; no list is edited."""

import sys
from pathlib import Path
from typing import Annotated

import pytest

from relume.core.choices import ChosenFrom, found_by_file, names_of
from relume.core.config import Config, keys
from relume.core.errors import ConfigError, UnknownNameError
from relume.infer import engines as engine_files
from relume.infer.engines import engines

IDEA = """
from typing import Literal
from relume.core.config import Config
class Inner(Config):
    epsilon: float = 1e-3
class {kind}Config(Config):
    name: Literal[{names}] = {first}
    {setting}: float = 0.5
    inner: Inner = Inner()
CONFIG = {kind}Config
"""


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    name = f"ideas_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text("WIDTH = 3\n")
    noise = IDEA.format(kind="Noise", names="'noise'", first="'noise'", setting="sigma")
    soft = IDEA.format(kind="Soft", names="'blur', 'soft-blur'", first="'blur'", setting="radius")
    (folder / "noise.py").write_text(noise)
    (folder / "soft.py").write_text(soft)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def kind(package):
    """A config with a field that holds any of the package's."""
    choice = ChosenFrom(package, "damage")

    class Run(Config):
        steps: int = 1
        damage: Annotated[Config, choice] = choice.named("noise")()

    return Run


def test_every_file_with_the_name_is_found_and_helpers_are_not(package):
    assert [config.__name__ for config in found_by_file(package, "CONFIG")] == ["NoiseConfig", "SoftConfig"]
    assert ChosenFrom(package, "damage").names() == ["blur", "noise", "soft-blur"]


def test_choosing_one_imports_only_its_file(package):
    assert names_of(ChosenFrom(package, "damage").named("noise")) == ("noise",)
    assert f"{package}.soft" not in sys.modules
    assert ChosenFrom(package, "damage").named("soft-blur").__name__ == "SoftConfig"


def test_unknown_names_are_told_with_the_nearest(package):
    with pytest.raises(UnknownNameError, match="unknown damage 'nose'; did you mean 'noise'"):
        ChosenFrom(package, "damage").named("nose")
    for hostile in ("__init__", "helper", "os", "..", "", None, 3, ["noise"]):
        with pytest.raises(UnknownNameError):
            ChosenFrom(package, "damage").named(hostile)


def test_plain_values_become_the_chosen_config_and_come_back(kind):
    run = kind.parse({"damage": {"name": "blur", "radius": 2}}, where="file")
    assert type(run.damage).__name__ == "SoftConfig"
    plain = {"name": "blur", "radius": 2.0, "inner": {"epsilon": 1e-3}}
    assert run.model_dump(mode="json")["damage"] == plain
    assert kind.parse(run.model_dump(mode="json"), where="file") == run
    assert kind.parse({"damage": "noise"}, where="file") == kind()
    assert kind(damage=run.damage) == run
    assert "damage.sigma" in keys(kind)
    assert "damage.radius" in keys(kind, run.model_dump())


@pytest.mark.parametrize("changes", [
    {"damage.radius": 3, "damage.name": "blur"},
    {"damage": "blur", "damage.radius": 3},
    {"damage": {"radius": 3, "name": "blur"}},
])  # fmt: skip
def test_another_name_starts_from_that_configs_own_values(kind, changes):
    before = kind().override({"damage.inner.epsilon": 7}, where="recipe")
    after = before.override(changes, where="recipe")
    assert (after.damage.name, after.damage.radius, after.damage.inner.epsilon) == ("blur", 3, 1e-3)
    kept = after.override({"damage.name": "soft-blur"}, where="recipe")
    assert (kept.damage.name, kept.damage.radius) == ("soft-blur", 3)  # the same file: the rest stays
    assert before.override({"damage": {"sigma": 1}}, where="recipe").damage.inner.epsilon == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"damage.radius": 3}, "no setting 'damage.radius' with damage=noise; choose damage=blur first"),
        ({"damage.height": 3}, "no setting 'damage.height'; known: name, sigma, inner"),
        ({"damage.name": "blur", "damage.radus": 3}, "'damage.radus'; did you mean 'damage.radius'?"),
        ({"sigma": 3}, "did you mean 'damage.sigma'?"),
        ({"damage": "blurr"}, "damage.name: unknown damage 'blurr'; did you mean 'blur'?"),
        ({"damage.sigma": "much"}, "damage.sigma: Input should be a valid number"),
        ({"damage.sigma.x": 1}, "holds one value"),
        ({"damage": 3}, "damage: give a name: blur, noise, soft-blur"),
    ],
)
def test_slips_are_told_in_one_line(kind, changes, message):
    with pytest.raises(ConfigError) as error:
        kind().override(changes, where="recipe")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"damage": {"name": "blur", "radus": 3}}, "'damage.radus'; did you mean 'damage.radius'"),
        ({"damage": {"name": "nois"}}, "damage: unknown damage 'nois'; did you mean 'noise'"),
        ({"damage": {"sigma": 1}}, "damage: give a name"),
    ],
)
def test_slips_in_a_file_are_told_in_one_line(kind, values, message):
    with pytest.raises(ConfigError) as error:
        kind.parse(values, where="file")
    assert message in str(error.value)


def test_a_config_without_a_name_to_be_chosen_by_is_a_mistake_in_its_file():
    class Nameless(Config):
        sigma: float = 1.0

    with pytest.raises(TypeError, match="needs `name: Literal"):
        names_of(Nameless)


def test_engines_are_found_by_file_too():
    folder = Path(engine_files.__file__).parent
    defining = {
        path.stem for path in folder.glob("*.py") if "\nENGINE = " in path.read_text(encoding="utf-8")
    }
    assert "torch" in defining
    assert {engine.__module__.rpartition(".")[2] for engine in engines().values()} == defining
    assert list(engines()) == sorted(engines())
