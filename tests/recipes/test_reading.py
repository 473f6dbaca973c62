"""Recipes as YAML and Python: what is written loads back; slips are told in one line."""

import shlex
from itertools import pairwise

import pytest

from relume.apps.settings import parse_settings
from relume.core.catalogue import systems
from relume.core.errors import ConfigError, RelumeError
from relume.recipes.cfsr import CFSRRecipe
from relume.recipes.reading import read_recipe, written
from relume.recipes.runner import find_recipe
from relume.train.objectives.pixel import PixelConfig

CFSR = "from relume.recipes.cfsr import recipe as cfsr\n\ndef recipe():\n"


@pytest.fixture
def page(tmp_path):
    def put(text):
        (tmp_path / "mine.yaml").write_text(text)
        return tmp_path / "mine.yaml"

    return put


def test_plain_words_are_read_as_people_mean_them(page):
    text = (
        "variant: cfsr-x2\nsteps: 010\nstart: no\nclip: .5\noptimiser: {learning_rate: 1e-3}\n"
        "validation: {damaged: true, folder: ~}\nschedule: {floor: 0., halvings: [5.e-1, +0.75]}\n"
    )
    recipe = read_recipe(page(text))
    assert (recipe.steps, recipe.start, recipe.clip, recipe.optimiser.learning_rate) == (10, "no", 0.5, 1e-3)
    assert recipe.validation.damaged
    assert recipe.validation.folder is None
    assert recipe.schedule.halvings == (0.5, 0.75)


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
        ("3: 4\n", "line 1: '3' is no name of a setting"),
        ("variant: cfsr-x2\ndata: {32: x}\n", "line 2: '32' is no name of a setting"),
        ("variant: cfsr-x2\nschedule:\n  0.5: 1\n", "line 3: '0.5' is no name of a setting"),
        ("variant: cfsr-x2\ndata: {[a]: 1}\n", "line 2: a list or mapping is no name of a setting"),
        (
            "variant: cfsr-x2\nobjective:\n  name: weighted\n  parts:\n  - {name: l1, name: l2}\n",
            "line 5: 'name' stands twice",
        ),
        (
            "variant: cfsr-x2\ndata: {patch: 16}\ndata.patch: 32\n",
            "data.patch is set twice, also within data",
        ),
        ("variant: cfsr-x2\nobjective: l1\nobjective.name: l2\n", "objective.name is set twice"),
        ("variant: cfsr-x2\nsurgery: [reparameterise, reparameterise]\n", "'reparameterise' stands twice"),
        ("variant: cfsr-x2\nsteps: yes\n", "steps: Input should be a valid integer"),
        ("variant: cfsr-x2\nsteps: true\n", "steps: a number or a word is wanted, not true or false"),
        ("variant: cfsr-x2\nsteps: 1:30\n", "steps: Input should be a valid integer"),
        ("variant: cfsr-x2\nsteps: 2020-01-01\n", "steps: Input should be a valid integer"),
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"name": "weighted", "parts": ["l1", {"name": "ssim", "wieght": 1}]}},
         "no setting 'objective.parts.1.wieght'; did you mean 'objective.parts.1.weight'?"),
        ({"objective": "dcpt"}, "objective.layers must be given"),
        ({"surgery": "tunable"}, 'surgery is a list, ["tunable"] if that is meant'),
        ({"data": 3}, "data holds settings of its own (folders, patch"),
        ({"objective.epsilon": 3}, "objective: l1 has no epsilon; it is charbonnier's"),
        ({"objective.parts": ["l1"]},
         "no setting 'objective.parts' with objective=l1; choose objective=weighted first"),
        ({"objective": {"name": "mse", "adversarial": {"weight": 1}}},
         "no setting 'objective.adversarial' with objective=mse; choose objective=contrastive or "
         "objective=multi-loss or objective=weighted first"),
        ({"objective.adversarial.weight": 1}, "no setting 'objective.adversarial.weight' with objective=l1; "
         "choose objective=multi-loss or objective=weighted first"),
        ({"degradation.level": 3},
         "no setting 'degradation.level' with degradation=bicubic; choose degradation=noise first"),
        ({"schedule.halvings": [0.9, 0.5, 0.5]},
         "schedule.halvings: shares of the run grow, such as [0.5, 0.9] (got [0.9, 0.5, 0.5])"),
        ({"validation.best": "pnsr"},
         "validation.best: protocol sr-y has no figure 'pnsr'; did you mean 'psnr'? It measures psnr, ssim"),
        ({"validation.best": "sism"},
         "validation.best: protocol sr-y has no figure 'sism'; did you mean 'ssim'? It measures ssim, psnr"),
        ({"validation.best": "lpips"},
         "validation.best: protocol sr-y has no figure 'lpips'; it measures psnr, ssim"),
        ({"validation": {"protocol": "cube", "best": "Sam"}},
         "validation.best: protocol cube has no figure 'Sam'; did you mean 'sam'? It measures sam, psnr"),
        ({"validation.protocol": "sr-x"},
         "validation.protocol: unknown protocol 'sr-x'; did you mean 'sr-y'?"),
        ({"degradation": {"name": "one-of", "kinds": ["bicubic"]}},
         "degradation.kinds: bicubic makes pictures smaller"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_our_own_words(changes, message):
    with pytest.raises(RelumeError) as error:
        find_recipe("cfsr-x2", "cpu").override(changes, where="recipe")
    assert str(error.value).startswith(f"recipe: {message}")


@pytest.mark.parametrize(
    ("variant", "advice"),
    [
        ("espcn-x2", "begin with its own recipe: relume train espcn-x2"),
        ("rlfn-x2", "begin with its own recipe: relume train rlfn-x2"),
        ("cfsr-x2-photo", "begin with its own recipe: relume train cfsr-x2-photo"),
        ("cfsr-x9", "unknown model 'cfsr-x9'; did you mean 'cfsr-x"),
        (3, "unknown model '3'; known: "),
    ],
)
def test_another_variant_is_refused_as_its_settings_are_its_own(variant, advice):
    plain = find_recipe("cfsr-x2", "cpu")
    with pytest.raises(ConfigError) as error:
        plain.override({"variant": variant}, where="recipe")
    problem = "variant: the settings of cfsr-x2 do not make another variant"
    assert str(error.value).startswith(f"recipe: {problem}; {advice}")
    assert plain.override({"variant": "cfsr-x2"}, where="recipe") == plain


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("espcn-x2", "network: espcn-x2 has a ESPCNConfig, not a CFSRConfig; begin with"),
        ("cfsr-x9", "variant: unknown model 'cfsr-x9'; did you mean 'cfsr-x"),
    ],
)
def test_a_variant_and_its_network_are_checked_against_each_other(variant, message):
    values = {**find_recipe("cfsr-x2", "cpu").model_dump(mode="json"), "variant": variant}
    with pytest.raises(ConfigError) as error:
        CFSRRecipe.parse(values, where="recipe")
    assert str(error.value).startswith(f"recipe: {message}")


def test_a_routed_network_takes_any_objective():
    recipe = find_recipe("cfsr-routed-x4", "cpu").override({"objective": "l1"}, where="recipe")
    assert recipe.objective == PixelConfig()


@pytest.mark.parametrize("system", [each for each in systems().values() if each.card["use"]], ids=str)
def test_what_a_card_says_of_its_use_is_right(system):
    for command in system.card["use"]:
        name, job, variant, *words = shlex.split(command)
        if (name, job) == ("relume", "train"):
            budget = words[words.index("--budget") + 1] if "--budget" in words else "cpu"
            given = [value for option, value in pairwise(words) if option == "--set"]
            find_recipe(variant, budget).override(parse_settings(given), where="recipe")


def test_python_recipes(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from relume.recipes.cfsr import recipe as cfsr\n\n\n"
        "def recipe():\n    return cfsr('cfsr-x2').override({'steps': 7}, where=__file__)\n"
    )
    assert read_recipe(path) == find_recipe("cfsr-x2", "cpu").override({"steps": 7}, where="recipe")
    with pytest.raises(RelumeError, match="leave --budget out"):
        read_recipe(path, budget="gpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.py defines no recipe()"),
        ("def recipe():\n    return 3\n", "mine.py: recipe() returned int, not a Recipe"),
        ("def recipe(:\n", "mine.py, line 1: SyntaxError"),
        ("def recipe():\n    return 1 / 0\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("import none_such\n", "mine.py, line 1: ModuleNotFoundError"),
        (f"{CFSR}    return cfsr('cfsr-x9')\n",
         "mine.py, line 4: unknown variant 'cfsr-x9'; did you mean 'cfsr-x"),
        (f"{CFSR}    return cfsr('espcn-x3')\n", "(the recipe of espcn-x3 is in relume.recipes.espcn)"),
        (f"{CFSR}    return cfsr('cfsr-x2', 'gpuu')\n", "line 4: unknown budget 'gpuu'; did you mean 'gpu'?"),
        (f"{CFSR}    return type(cfsr('cfsr-x2'))(**dict(cfsr('cfsr-x2')), stepz=3)\n",
         "mine.py, line 4: CFSRRecipe: no setting 'stepz'; did you mean 'steps'?"),
        (f"{CFSR}    return type(cfsr('cfsr-x2'))(variant='cfsr-x2', network={{'widht': 3}})\n",
         "mine.py, line 4: CFSRRecipe: no setting 'network.widht'; did you mean 'network.width'?"),
        (f"{CFSR}    cfsr('cfsr-x2').steps = 3\n",
         "CFSRRecipe: steps cannot be changed; make a copy: override({'steps': 3}, where=…)"),
        ("import sys\n\ndef recipe():\n    sys.exit(0)\n",
         "mine.py, line 4: it ends the program (exit status 0), where it should return a Recipe"),
    ],
)  # fmt: skip
def test_a_python_recipe_that_fails_is_told_in_one_line(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(RelumeError) as error:
        read_recipe(tmp_path / "mine.py")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
