"""DnCNN's own: the layouts of checkpoints, with norms and merged, and what the authors' weights reach."""

import json

import numpy as np
import pytest
import torch
from official import GOLDEN, SHARED

from relume.core.pictures import read
from relume.measures.psnr import psnr
from relume.models import zoo
from relume.models.restoration.dncnn import VARIANTS, DnCNN, DnCNNConfig, from_official, tiny
from relume.nn.surgery import apply_steps
from relume.recipes.dncnn import recipe

WEIGHTS = SHARED / "weights" / "dncnn_dncnn_25.safetensors"


def theirs(network, *, gaps=False):
    """Return a network's state under the numbers of the authors' code; `gaps`: those of norms left empty."""
    normed = not network.steps
    depth = len(network.config.dilations)
    wide = normed or gaps
    state = {}
    for name, value in network.state_dict().items():
        layer, _, part = name.rpartition(".")
        if layer == "shallow":
            number = 0
        elif layer == "last":
            number = 2 + 3 * (depth - 2) if wide else 2 * (depth - 1)
        else:
            index = int(layer.split(".")[1])
            number = 2 + (3 if wide else 2) * index + layer.endswith("norm")
        state[f"model.{number}.{part}"] = value
    return state


@pytest.mark.parametrize("layout", ["normed", "merged", "gaps"])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_recognised_in_every_layout(name, layout):
    config = VARIANTS[name].config.model_copy(update={"width": 4})
    if layout == "normed" and name.startswith("ircnn"):
        config = config.model_copy(update={"dilations": (1,) * 7})  # the authors' IRCNN has no norms
    network = DnCNN(config)
    if layout != "normed":
        apply_steps(network, VARIANTS[name].steps)
    for prefix in ("", "model."):
        state = {
            key.removeprefix(prefix): value for key, value in theirs(network, gaps=layout == "gaps").items()
        }
        found = from_official(state)
        assert (found.config, tuple(found.steps)) == (config, network.steps)
        assert found.state.keys() == network.state_dict().keys()
        assert all(torch.equal(found.state[key], value) for key, value in network.state_dict().items())


def test_the_authors_arguments_are_understood():
    assert DnCNNConfig(dilations=7, activation="BL") == DnCNNConfig(dilations=(1,) * 7, activation="leaky")
    assert DnCNNConfig(activation="BR").activation == "relu"


def test_relatives_are_not_taken_for_it():
    state = theirs(apply_steps(DnCNN(tiny(VARIANTS["dncnn-25"].config)), ["reparameterise"]))
    assert from_official({**state, "up.weight": torch.zeros(1)}) is None
    # FFDNet takes a map of the noise and quarters of the picture.
    assert from_official({**state, "model.0.weight": torch.zeros(6, 5, 3, 3)}) is None
    assert from_official({"model.0.weight": torch.zeros(4, 1, 3, 3)}) is None
    assert from_official({"0.weight": torch.zeros(4)}) is None
    assert from_official({"0.bias": torch.zeros(4)}) is None


@pytest.mark.parametrize(
    ("variant", "level"), [("dncnn-50", (50, 50)), ("dncnn-color-blind", (0, 55)), ("ircnn-25", (25, 25))]
)
def test_recipes_add_the_noise_that_a_variant_is_for(variant, level):
    assert recipe(variant).degradation.level == level


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the authors' weights (shared/weights) are not at hand")
def test_set12_is_the_authors():
    """The noise is theirs: NumPy's, begun anew for each picture, and not clamped."""
    network, header = zoo.load(WEIGHTS)
    assert header.variant == "dncnn-15"  # the first of those with this network
    wanted = json.loads((GOLDEN / "dncnn" / "facts.json").read_text())["set12_sigma25_psnr"]
    for number in (1, 5):
        clean = read(SHARED / "data" / "sr" / "Set12" / f"{number:02}.png").pixels[None, :1]
        noise = np.random.RandomState(0).normal(0, 25 / 255, (*clean.shape[2:], 1))
        noisy = (clean[0, 0].double().numpy()[..., None].astype(np.float32) + noise).astype(np.float32)
        with torch.inference_mode():
            output = network(torch.from_numpy(noisy).permute(2, 0, 1)[None])
        levels = [(255 * each.clamp(0, 1)).round() for each in (output, clean)]
        assert float(psnr(*levels, peak=255.0)) == pytest.approx(wanted[number - 1], abs=0.01)
