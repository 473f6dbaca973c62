"""Recipes of networks that keep the size: each variant and budget blurs by a moving camera."""

from importlib import import_module

import pytest
import torch

from relume.core.catalogue import systems
from relume.core.errors import DataError
from relume.core.pictures import Picture, write
from relume.data.benchmarks import find_pairs
from relume.recipes.runner import find_recipe
from relume.train.stepping import learning_rate

VARIANTS = [
    name
    for system in systems().values()
    if system.recipe and hasattr(import_module(system.recipe), "DeblurringRecipe")
    for name in system.variants
]


@pytest.mark.parametrize("budget", ["cpu", "gpu"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_recipes_blur_and_count_the_networks_pictures(variant, budget):
    recipe = find_recipe(variant, budget)
    assert recipe.degradation.keeps_size
    assert recipe.degradation.build(1).margin > 0
    assert recipe.objective.name == "multi-output"
    assert recipe.network.heads.count == (4 if variant.startswith("mh") else 1)


@pytest.mark.parametrize(
    ("variant", "last"),
    [("nafnet-32", 1e-7), ("hinet", 1e-7), ("restormer", 1e-6)],
    ids=lambda each: str(each),
)
def test_the_rate_falls_as_far_as_the_authors_do(variant, last):
    recipe = find_recipe(variant, "gpu")
    rates = [
        learning_rate(step, recipe.steps, recipe.optimiser, recipe.schedule)
        for step in (0, recipe.steps // 2, recipe.steps - 1)
    ]
    assert rates[0] == recipe.optimiser.learning_rate
    assert rates[1] == pytest.approx(rates[0] / 2, rel=0.01)
    assert rates[2] == pytest.approx(last, rel=0.001)


def test_patches_fit_the_small_networks_windows():
    for variant in ("nafnet-small", "mhnafnet-small"):
        recipe = find_recipe(variant, "cpu")
        assert recipe.network.patch == (recipe.data.patch, recipe.data.patch)


def test_damaged_pictures_are_never_the_sharp_ones(tmp_path):
    sharp, blurred = torch.rand(2, 3, 12, 10)
    (tmp_path / "HR").mkdir()
    write(Picture(pixels=sharp), tmp_path / "HR" / "a.png")
    for make_low in (False, True):
        with pytest.raises(DataError, match=r"no damaged pictures.*LR_bicubic/X1"):
            find_pairs(tmp_path, scale=1, always_make_low=make_low)
    (tmp_path / "LR_bicubic" / "X1").mkdir(parents=True)
    write(Picture(pixels=blurred), tmp_path / "LR_bicubic" / "X1" / "a.png")
    (pair,) = find_pairs(tmp_path, scale=1)
    assert (pair.low - blurred).abs().max() <= 1 / 255
    assert (pair.high - sharp).abs().max() <= 1 / 255
