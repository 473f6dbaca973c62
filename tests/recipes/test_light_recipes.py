"""Recipes of light super-resolution networks: whole, written and read back, with a damage of their scale."""

import pytest

from relume.core.catalogue import systems, variants
from relume.recipes.reading import read_recipe, written
from relume.recipes.runner import find_recipe

VARIANTS = [name for system in ("imdn", "rfdn", "rlfn", "bsrn") for name in systems()[system].variants]


@pytest.mark.parametrize("budget", ["cpu", "gpu"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_loads_back_and_the_damage_fits(variant, budget, tmp_path):
    scale = variants()[variant].scale
    recipe = find_recipe(variant, budget)
    (tmp_path / "mine.yaml").write_text(written(recipe))
    assert read_recipe(tmp_path / "mine.yaml") == recipe
    # Bicubic by 1 would be no damage at all.
    assert (type(recipe.degradation).__name__ == "BicubicConfig") == (scale > 1)
    assert recipe.network.scale == scale
