"""Recipes as YAML: what is written loads back; slips are told in one line."""

import pytest

from relume.core.errors import RelumeError
from relume.recipes.reading import read_recipe, written
from relume.recipes.runner import find_recipe


@pytest.fixture
def page(tmp_path):
    def put(text):
        (tmp_path / "mine.yaml").write_text(text)
        return tmp_path / "mine.yaml"

    return put


@pytest.mark.parametrize("variant", ["cfsr-x2", "cfsr-x4", "cfsr-routed-x4"])
@pytest.mark.parametrize("budget", ["cpu", "gpu"])
def test_what_is_written_loads_back(page, variant, budget):
    recipe = find_recipe(variant, budget)
    assert read_recipe(page(written(recipe))) == recipe


def test_a_file_says_only_what_differs(page):
    text = "variant: cfsr-x4\nsteps: 7\noptimiser:\n  learning_rate: 1e-4\nobjective:\n  name: charbonnier\n"
    recipe, plain = read_recipe(page(text)), find_recipe("cfsr-x4", "cpu")
    assert recipe == plain.override(
        {"steps": 7, "optimiser.learning_rate": 1e-4, "objective.name": "charbonnier"}, where="recipe"
    )
    assert recipe.data == plain.data
    assert read_recipe(page("variant: cfsr-x4\nbudget: gpu\n")) == find_recipe("cfsr-x4", "gpu")
    assert read_recipe(page("variant: cfsr-x4\nbudget: gpu\n"), budget="cpu") == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 7\n", "names no variant; begin it with a line like: variant: cfsr-x2"),
        ("variant: cfsr-x9\n", "did you mean"),
        ("variant: cfsr-x2\nbudget: huge\n", "unknown budget 'huge'"),
        ("variant: cfsr-x2\nstpes: 7\n", "no setting 'stpes'; did you mean 'steps'?"),
        ("variant: cfsr-x2\ndata: {bach: 7}\n", "no setting 'data.bach'; did you mean 'data.batch'?"),
        ("variant: cfsr-x2\ndata:\n  batch: 7\n  batch: 8\n", "line 4: 'batch' stands twice"),
        ("variant: cfsr-x2\nsteps: many\n", "steps: Input should be a valid integer"),
        ("variant: cfsr-x2\nobjective: {name: routing, distance: {name: l3}}\n", "objective.distance.name"),
        ("variant: [cfsr-x2\n", "not YAML: line 2"),
        ("- variant\n", "is no recipe"),
        ("3: 4\n", "is no recipe"),
        ("", "is no recipe"),
        ("variant: !!python/object/apply:os.system [ls]\n", "not YAML"),
    ],
)
def test_slips_are_told_in_one_line(page, text, message):
    with pytest.raises(RelumeError) as error:
        read_recipe(page(text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_one_that_is_no_text_are_told(tmp_path):
    with pytest.raises(RelumeError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RelumeError, match="no UTF-8 text"):
        read_recipe(tmp_path / "bytes.yaml")
