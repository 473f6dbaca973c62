"""Recipes of SwinIR and PromptIR: whole, written and read back, with a damage that fits the task."""

import pytest

from relume.core.catalogue import systems, variants
from relume.recipes.reading import read_recipe, written
from relume.recipes.runner import find_recipe

VARIANTS = [name for system in ("swinir", "promptir") for name in systems()[system].variants]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_loads_back_and_the_damage_fits(variant, tmp_path):
    scale = variants()[variant].scale
    for budget in ("cpu", "gpu"):
        recipe = find_recipe(variant, budget)
        (tmp_path / "mine.yaml").write_text(written(recipe))
        assert read_recipe(tmp_path / "mine.yaml") == recipe
        # Bicubic by 1 would be no damage at all.
        assert recipe.degradation.keeps_size == (scale == 1)
        assert recipe.degradation.build(scale)
