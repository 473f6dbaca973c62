"""Whole runs with an adversary, an encoder and a teacher: trained, logged, stopped and gone on with."""

import pytest
import torch

from relume.core.errors import ConfigError
from relume.recipes.runner import Run, find_recipe
from relume.train.observers import read_log
from training import trained

TINY = {
    "steps": 20, "log_every": 1, "save_every": 5, "threads": 1, "data.patch": 16, "data.batch": 2,
    "network.width": 8, "network.depths": [1], "network.kernel_size": 3, "start": None,
    "optimiser.learning_rate": 5e-3, "schedule.warmup": 1,
}  # fmt: skip
ADVERSARIAL = {
    "objective": "weighted",
    "objective.parts": ["l1", "edge"],
    "objective.adversarial.weight": 1e-3,
    "objective.adversarial.discriminator.width": 4,
    "objective.adversarial.optimiser.learning_rate": 1e-2,
}


def prepare(photos, folder, changes):
    changes = {**TINY, "data.folders": [str(photos)], **changes}
    return Run(find_recipe("cfsr-x2", "cpu").override(changes, where="recipe"), folder, command="test")


def test_an_adversary_is_trained_beside_the_network(photos, tmp_path):
    run = prepare(photos, tmp_path / "run", ADVERSARIAL)
    partner = run.loop.stepper.objective.partner
    before = {name: value.detach().clone() for name, value in partner.named_parameters()}
    run.train()
    assert all(not torch.equal(value, before[name]) for name, value in partner.named_parameters())
    lines = read_log(tmp_path / "run" / "log.jsonl")
    assert {"loss", "l1", "edge", "adversarial", "partner_loss", "real", "fake"} <= lines[-1].keys()
    first, last = (sum(line["partner_loss"] for line in some) / len(some) for some in (lines[:3], lines[-3:]))
    assert last < first
    assert lines[-1]["l1"] < lines[0]["l1"]


def test_a_stopped_run_goes_on_as_if_left_alone(photos, tmp_path):
    def finished(folder, *, stop_after=None):
        run = trained(lambda: prepare(photos, folder, ADVERSARIAL), stop_after=stop_after)
        return {**run.network.state_dict(), **run.loop.stepper.objective.partner.state_dict()}

    alone, stopped = finished(tmp_path / "alone"), finished(tmp_path / "stopped", stop_after=7)
    assert all(torch.equal(alone[name], stopped[name]) for name in alone)


def test_a_teacher_and_an_encoder_by_name_are_learnt_from(photos, tmp_path):
    taught = {
        "objective": "weighted", "objective.distillation.teacher": "cfsr-x2",
        "objective.distillation.features": {"fuse": "fuse"},
    }  # fmt: skip
    encoded = [{"name": "perceptual", "encoder": "cfsr-x2", "layers": {"shallow": 1e-4}}]
    prepare(photos, tmp_path / "run", {**taught, "objective.parts": encoded, "steps": 10}).train()
    lines = read_log(tmp_path / "run" / "log.jsonl")
    assert lines[-1]["teacher"] < lines[0]["teacher"]
    assert lines[-1]["loss"] == pytest.approx(
        lines[-1]["teacher"] + lines[-1]["teacher_features"] + lines[-1]["perceptual"]
    )


def test_a_patch_too_small_for_a_loss_is_refused_before_the_run(photos, tmp_path):
    with pytest.raises(ConfigError, match="176 pixels a side, got 32×32; set its scales to 2"):
        prepare(photos, tmp_path / "run", {"objective": "weighted", "objective.parts": ["ms-ssim"]})
    assert not (tmp_path / "run").exists()
