"""DCPT as a user runs it: pre-training by a recipe, going on after a stop, and starting from its weights."""

import json

import pytest
import torch

from relume.core.errors import ConfigError
from relume.recipes.promptir import BUDGETS
from relume.recipes.promptir import recipe as promptir_recipe
from relume.recipes.runner import Run, find_recipe
from training import trained

SMALL = {
    "network.width": 4, "network.encoders": [1, 1], "network.decoders": [1, 1], "data.patch": 16,
    "data.batch": 4, "accumulate": 2, "log_every": 1, "threads": 1, "device": "cpu",
    "degradation": {"name": "one-of", "kinds": ["noise", "haze", "low-light"]},
}  # fmt: skip
PRETRAIN = {
    **SMALL, "steps": 6,
    "objective": {"name": "dcpt", "layers": {"decoders.1": 4, "decoders.0": 8}, "kinds": 3, "blocks": 1},
}  # fmt: skip


def prepare(photos, folder, changes):
    changes = {**changes, "data.folders": [str(photos)]}
    return Run(find_recipe("nafnet-32", "cpu").override(changes, where="recipe"), folder, command="test")


def test_pretraining_then_restoring_from_its_weights(photos, tmp_path):
    run = prepare(photos, tmp_path / "pretrain", PRETRAIN)
    before = {
        name: value.detach().clone() for name, value in run.loop.stepper.objective.partner.named_parameters()
    }
    weights = run.train()
    partner = dict(run.loop.stepper.objective.partner.named_parameters())
    assert [name for name, value in before.items() if torch.equal(value, partner[name])] == []
    lines = [json.loads(line) for line in (tmp_path / "pretrain" / "log.jsonl").read_text().splitlines()]
    assert {"loss", "l1", "classification", "partner_loss", "right"} <= lines[-1].keys()
    fine = prepare(photos, tmp_path / "fine", {**SMALL, "objective": "l1", "steps": 2, "start": str(weights)})
    assert fine.taken_over == 1
    fine.train()


def test_a_stopped_pretraining_goes_on_as_if_left_alone(photos, tmp_path):
    def finished(folder, *, stop_after=None):
        run = trained(lambda: prepare(photos, folder, PRETRAIN), stop_after=stop_after)
        return {**run.network.state_dict(), **run.loop.stepper.objective.partner.state_dict()}

    alone, stopped = finished(tmp_path / "alone"), finished(tmp_path / "stopped", stop_after=2)
    assert len(alone) > 60
    assert all(torch.equal(alone[name], stopped[name]) for name in alone)


def test_a_degradation_that_does_not_tell_is_refused_before_the_run(photos, tmp_path):
    with pytest.raises(ConfigError, match="use a degradation that tells"):
        prepare(photos, tmp_path / "run", {**PRETRAIN, "degradation": "haze"})


def test_more_kinds_than_are_told_apart_are_refused_before_one_of_them_comes_up(photos, tmp_path):
    # Of this seed, the two patches that are tried are of other kinds than the fifth.
    more = ["noise", "haze", "low-light", "rain", "motion-blur"]
    objective = {**PRETRAIN["objective"], "kinds": 4}
    degradation = {"name": "one-of", "kinds": more}
    changes = {**PRETRAIN, "degradation": degradation, "objective": objective, "seed": 4}
    with pytest.raises(ConfigError, match=r"objective\.kinds names 4 kinds, but the degradation has 5"):
        prepare(photos, tmp_path / "run", changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("budget", BUDGETS)
def test_promptirs_budgets_mix_as_many_kinds_as_are_told_apart(budget):
    recipe = promptir_recipe("promptir", budget)
    assert recipe.degradation.name == "one-of"
    if budget == "pretrain":
        assert recipe.objective.kinds == len(recipe.degradation.kinds)
        widths = {"decoders.0": 4 * recipe.network.width, "decoders.1": 2 * recipe.network.width}
        assert recipe.objective.layers == widths
