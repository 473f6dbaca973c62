"""Parameters that a recipe freezes stay as they are; the rest of a routed network is trained."""

import json

import pytest
import torch

from relume.core.errors import ConfigError
from relume.models import zoo
from relume.recipes.runner import Run, find_recipe

CHANGES = {
    "steps": 6, "data.patch": 8, "data.batch": 2, "threads": 1, "optimiser.learning_rate": 1e-2,
    "start": None, "network.width": 8, "network.depth": 1,
    "network.settings": {"scale": 4, "width": 8, "depths": [1], "kernel_size": 3},
}  # fmt: skip


def prepare(photos, folder, **more):
    changes = {**CHANGES, "data.folders": [str(photos)], **more}
    recipe = find_recipe("cfsr-routed-x4", "cpu").override(changes, where="recipe")
    return Run(recipe, folder, command="test")


def test_frozen_parameters_stay_and_others_move(photos, tmp_path):
    run = prepare(photos, tmp_path / "run")
    before = {name: value.detach().clone() for name, value in run.network.named_parameters()}
    weights = run.train()
    for name, value in run.network.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith("heavy."), name
    network, header = zoo.load(weights)
    low = torch.rand(1, 3, 8, 9)
    network.effort = 1
    with torch.no_grad():
        assert (network(low) - run.network.eval().heavy(low)).abs().max() <= 1e-5
    assert header.recipe["frozen"] == ["heavy."]
    assert header.recipe["objective"]["name"] == "routing"
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"distance", "balance", "light"} <= logged[-1].keys()


@pytest.mark.parametrize(("frozen", "said"), [(["havy."], "begins with 'havy.'"), ([""], "nothing to train")])
def test_freezing_nothing_or_everything_is_refused(photos, tmp_path, frozen, said):
    with pytest.raises(ConfigError, match=said):
        prepare(photos, tmp_path / "run", frozen=frozen)


def test_shipped_recipe_starts_from_the_large_network_of_its_scale(photos, tmp_path):
    recipe = find_recipe("cfsr-routed-x4", "cpu")
    assert recipe.start == "cfsr-x4"
    assert recipe.frozen == ("heavy.",)
