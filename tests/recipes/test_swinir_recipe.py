"""Recipes of SwinIR: the authors' numbers for each of its kinds."""

import pytest

from relume.core.catalogue import systems
from relume.recipes.runner import find_recipe
from relume.train.stepping import learning_rate


@pytest.mark.parametrize(
    ("variant", "patch", "batch", "steps", "halved"),
    [
        ("swinir-x2", 64, 32, 500_000, (250_000, 400_000, 450_000, 475_000)),
        ("swinir-light-x4", 64, 64, 500_000, (250_000, 400_000, 450_000, 475_000)),
        ("swinir-real-large-x4", 64, 32, 1_000_000, (500_000, 800_000, 900_000, 950_000)),
        ("swinir-denoise-gray", 128, 8, 1_600_000, (800_000, 1_200_000, 1_400_000, 1_500_000)),
        ("swinir-jpeg", 126, 8, 1_600_000, (800_000, 1_200_000, 1_400_000, 1_500_000)),
    ],
)
def test_swinir_has_the_authors_numbers_for_each_kind(variant, patch, batch, steps, halved):
    recipe = find_recipe(variant, "gpu")
    assert (recipe.data.patch, recipe.data.batch, recipe.steps) == (patch, batch, steps)
    rates = [
        learning_rate(step, steps, recipe.optimiser, recipe.schedule)
        for at in (1, *halved)
        for step in (at - 1, at)
    ]
    assert rates == [2e-4] * 3 + [1e-4] * 2 + [5e-5] * 2 + [2.5e-5] * 2 + [1.25e-5]


@pytest.mark.parametrize("variant", systems()["swinir"].variants)
def test_swinirs_patches_are_whole_windows(variant):
    for budget in ("cpu", "gpu"):
        recipe = find_recipe(variant, budget)
        assert recipe.data.patch % recipe.network.window == 0
