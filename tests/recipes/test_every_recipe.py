"""Every variant's recipe, in each of its budgets: whole, written and read back, with a damage that fits."""

import inspect
from importlib import import_module

import pytest

from relume.core.catalogue import find_variant, systems, variants
from relume.core.errors import UnknownNameError
from relume.recipes.reading import read_recipe, written
from relume.recipes.runner import find_recipe

VARIANTS = [name for system in systems().values() if system.recipe for name in system.variants]


@pytest.mark.parametrize(
    "system", [each for each in systems().values() if each.recipe], ids=lambda each: each.name
)
def test_a_variant_or_budget_that_it_has_not_is_refused(system):
    module, variant = import_module(system.recipe), next(iter(system.variants))
    with pytest.raises(UnknownNameError, match=f"unknown variant '{variant}x'; did you mean '{variant}'"):
        module.recipe(f"{variant}x")
    with pytest.raises(UnknownNameError, match="unknown budget 'gpuu'; did you mean 'gpu'"):
        module.recipe(variant, "gpuu")


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_objective_and_any_degradation_can_be_chosen(variant):
    for budget in import_module(systems()[find_variant(variant).system].recipe).BUDGETS:
        changes = {"objective": "weighted", "objective.parts": ["l1", "ssim"], "degradation": "noise"}
        changed = find_recipe(variant, budget).override(changes, where="recipe")
        assert [part.shown for part in changed.objective.parts] == ["l1", "ssim"]
        assert changed.degradation.name == "noise"


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_loads_back_and_the_damage_fits(variant, tmp_path):
    system, scale = systems()[find_variant(variant).system], variants()[variant].scale
    module = import_module(system.recipe)
    assert system.name == module.SYSTEM
    assert inspect.getdoc(module)
    for budget in module.BUDGETS:
        recipe = find_recipe(variant, budget)
        (tmp_path / "mine.yaml").write_text(written(recipe), encoding="utf-8")
        assert read_recipe(tmp_path / "mine.yaml", budget=budget) == recipe
        assert recipe.variant == variant
        # Bicubic by 1 would be no damage at all.
        assert scale > 1 or recipe.degradation.name != "bicubic"
        assert recipe.degradation.build(scale)
