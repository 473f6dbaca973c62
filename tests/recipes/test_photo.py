"""The recipe for photos of unknown damage: a run that starts from plain weights and leaves a slider."""

import json

import pytest
import torch

from relume.core.checkpoints import Header, write_checkpoint
from relume.core.errors import ConfigError, DataError
from relume.core.pictures import Picture, write
from relume.data.benchmarks import Damage, find_pairs
from relume.data.degradations.bsrgan import BSRGANConfig
from relume.measures.protocols import protocol
from relume.models import zoo
from relume.models.super_resolution.espcn import ESPCN, ESPCNConfig
from relume.nn.resize import enlarge_bicubic
from relume.recipes.runner import Run, find_recipe

TINY = {"network.width": 8, "network.depths": [1], "network.kernel_size": 3, "threads": 1, "data.batch": 2,
        "data.patch": 8, "steps": 3, "log_every": 1}  # fmt: skip
JUDGE = {"objective.adversarial.discriminator.width": 4}


@pytest.fixture
def photos(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "photos").mkdir()
    write(Picture(pixels=torch.rand(3, 100, 100)), tmp_path / "photos" / "a.png")
    return tmp_path / "photos"


def train(variant, photos, folder, **changes):
    changes = {**TINY, "data.folders": [str(photos)], **changes}
    return Run(find_recipe(variant, "cpu").override(changes, where="recipe"), folder, command="test").train()


def test_a_photo_network_starts_from_a_plain_one_and_ends_with_a_slider(photos, tmp_path):
    plain = train("cfsr-x2-blind", photos, tmp_path / "plain", start=None)
    weights = train("cfsr-x2-photo", photos, tmp_path / "photo", start=str(plain), **JUDGE)
    assert zoo.load(plain)[1].recipe["degradation"]["name"] == "bsrgan"
    network, header = zoo.load(weights)
    assert header.steps == ("reparameterise", "tunable")
    assert header.recipe["degradation"]["name"] == "bsrgan"
    assert header.trained["taken_over"] == 1
    assert network.contract.strength
    low = torch.rand(1, 3, 9, 10)
    outputs = []
    with torch.no_grad():
        for strength in (0.0, 1.0):
            network.strength = strength
            outputs.append(network.fixed()(low))
        start, _ = zoo.load(plain)
        assert 1e-6 < (outputs[0] - outputs[1]).abs().max() < 0.1
        assert 1e-6 < (outputs[0] - start(low)).abs().max() < 0.1


def test_a_photo_network_does_not_start_from_one_that_fits_nowhere(photos, tmp_path):
    other = ESPCN(ESPCNConfig(scale=2))
    config = other.config.model_dump(mode="json")
    header = Header(model="espcn", variant=None, config=config, steps=())
    write_checkpoint(tmp_path / "other.safetensors", other.state_dict(), header)
    with pytest.raises(ConfigError, match="only 0% can start from"):
        train("cfsr-x2-photo", photos, tmp_path / "photo", start=str(tmp_path / "other.safetensors"), **JUDGE)


def test_a_run_in_progress_keeps_best_weights_that_load(photos, tmp_path):
    (tmp_path / "set").mkdir()
    write(Picture(pixels=torch.rand(3, 80, 80)), tmp_path / "set" / "a.png")
    changes = {"start": None, "validation.folder": str(tmp_path / "set"), "validate_every": 1, **JUDGE}
    train("cfsr-x2-photo", photos, tmp_path / "run", **changes)
    # Measured on what the recipe's damage leaves of it.
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    damage = Damage(function=BSRGANConfig().build(2))
    (pair,) = find_pairs(tmp_path / "set", scale=2, damage=damage)
    bicubic = protocol("sr-y").measure(enlarge_bicubic(pair.low, scale=2), pair.high, 2)
    assert last["validation"]["psnr_bicubic"] == pytest.approx(bicubic["psnr"])
    network, header = zoo.load(tmp_path / "run" / "best.safetensors")
    assert header.steps == network.steps == ("reparameterise", "tunable")


def test_the_memory_that_a_discriminator_takes_is_counted(photos, tmp_path):
    def estimated(**changes):
        changes = {**TINY, "data.folders": [str(photos)], "start": None, **changes}
        recipe = find_recipe("cfsr-x2-photo", "cpu").override(changes, where="recipe")
        run = Run(recipe, tmp_path / "run", command="test")
        return run.demand.activations

    narrow, wide = (estimated(**{"objective.adversarial.discriminator.width": width}) for width in (4, 16))
    # Its activations grow with its width; beside them the network's own are small.
    assert wide > 2 * narrow


def test_pictures_too_small_to_be_measured_are_refused_before_the_run(photos, tmp_path):
    (tmp_path / "set").mkdir()
    write(Picture(pixels=torch.rand(3, 40, 40)), tmp_path / "set" / "a.png")
    with pytest.raises(DataError, match=r"a\.png is 8×8 pixels .* sr-y needs 15 a side"):
        train(
            "cfsr-x2-blind", photos, tmp_path / "run",
            **{"start": None, "validation.folder": str(tmp_path / "set")},
        )  # fmt: skip


def test_variants_of_one_config_are_told_apart_by_their_surgery():
    config = zoo.variant("cfsr-x4").config
    assert config == zoo.variant("cfsr-x4-photo").config
    assert zoo.variant_of("cfsr", config) == "cfsr-x4"
    assert zoo.variant_of("cfsr", config, ("reparameterise",)) == "cfsr-x4"
    assert zoo.variant_of("cfsr", config, ("reparameterise",), wanted="cfsr-x4-blind") == "cfsr-x4-blind"
    assert zoo.variant_of("cfsr", config, wanted="cfsr-x2-blind") == "cfsr-x4"
    assert zoo.variant_of("cfsr", config, ("reparameterise", "tunable")) == "cfsr-x4-photo"
