"""DCPT against what the authors' own code computes: networks, features of their layers, classifiers."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from relume.core.catalogue import systems
from relume.models import zoo
from relume.nn.classifier import FeatureClassifierConfig
from relume.nn.encoders.base import tapped
from relume.nn.network import count_parameters
from relume.train.objectives.dcpt import DCPTConfig
from relume.train.strategies.dcpt import classifier_from_official

TOLERANCE = 1e-5
"""Of the largest value, or of 1; the authors' own float32 differs from their float64 by up to 4e-6."""


@pytest.fixture
def case(shared):
    def read(name):
        with safe_open(shared / "golden" / "dcpt" / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["kwargs"])

    return read


def state_of(tensors, prefix=""):
    start = f"state/{prefix}"
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}


def network_of(state, arguments, path="case"):
    """Build our network from the authors' weights and the arguments that these do not show."""
    system, official = zoo.recognise(state, path)
    hidden = zoo.model_file(systems()[system]).OFFICIAL_SETTINGS
    changes = {ours: arguments[theirs] for theirs, ours in hidden.items() if theirs in arguments}
    if system == "nafnet":
        changes["patch"] = None  # their base class is the plain network
    network = zoo.build(official.config.override(changes, where=system), system=system).eval()
    network.load_state_dict(dict(official.state))
    return system, network


def classifier_of(state):
    config, ours = classifier_from_official(state)
    classifier = config.build()
    classifier.load_state_dict(ours)
    return classifier


def close(computed, recorded, what):
    assert computed.shape == recorded.shape, what
    difference = (computed.double() - recorded.double()).abs().max() / recorded.abs().max().clamp(min=1)
    assert difference <= TOLERANCE, f"{what} differs by {difference:.2e}"


@pytest.mark.parametrize("name", ["nafnet", "swinir", "restormer", "promptir"])
@torch.no_grad()
def test_networks(case, name):
    tensors, arguments = case(name)
    system, network = network_of(state_of(tensors), arguments)
    assert system == name
    close(network(tensors["input"]), tensors["output"], name)


LAYERS = {"dc_nafnet": ("decoders.1", "decoders.0"), "dc_swinir": ("blocks.5", "blocks.4", "blocks.3")}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_features_and_what_the_classifier_makes_of_them(case, name):
    tensors, arguments = case(name)
    _, network = network_of(state_of(tensors, "net_g."), arguments["gkw"])
    with tapped(network, LAYERS[name]) as heard:
        restored = network(tensors["input"])
    close(restored, tensors["output.restored"], "restored")
    features = [heard[layer] for layer in LAYERS[name]]
    for index, feature in enumerate(features):
        recorded = tensors[f"output.feat{index}"]
        as_recorded = feature.flatten(2).transpose(1, 2) if recorded.ndim == 3 else feature
        close(as_recorded, recorded, f"feature {index}")
    logits = classifier_of(state_of(tensors, "net_dc."))(features)
    close(logits, tensors["output.logits"], "logits")


@torch.no_grad()
def test_a_classifier_that_sees_the_picture(case):
    tensors, _ = case("dc_img")
    classifier = classifier_of(state_of(tensors))
    assert classifier.config.picture
    logits = classifier([tensors["input.f0"], tensors["input.f1"]], tensors["input"])
    close(logits, tensors["output"], "logits")


def test_pre_training_starts_from_an_authors_classifier(case, tmp_path):
    state = state_of(case("dc_img")[0])
    save_file(state, tmp_path / "net_dc.safetensors")
    config, ours = classifier_from_official(state)
    layers = {f"layer{index}": width for index, width in enumerate(config.widths)}
    settings = {"layers": layers, "kinds": config.classes, "blocks": config.blocks, "picture": True}
    objective = DCPTConfig(**settings, start=str(tmp_path / "net_dc.safetensors")).build()
    begun = objective.partner.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in ours.items())


def test_other_weights_are_no_classifier(case):
    assert classifier_from_official(state_of(case("nafnet")[0])) is None


def test_counts_and_names_of_the_published_sizes(shared):
    facts = json.loads((shared / "golden" / "dcpt" / "facts.json").read_text())
    counted = facts["params_counted"]
    names = {"NAFNetBaseline": "nafnet", "SwinIR": "swinir", "Restormer": "restormer", "PromptIR": "promptir"}
    for theirs, system in names.items():
        state = {key: torch.empty(shape, device="meta") for key, shape in facts["state"][theirs]}
        found, official = zoo.recognise(state, theirs)
        assert found == system
        with torch.device("meta"):
            network = zoo.build(official.config, system=system)
        assert count_parameters(network) == counted[theirs]
        network.load_state_dict(dict(official.state), strict=True, assign=True)
    state = {key: torch.empty(shape, device="meta") for key, shape in facts["state"]["PromptIR_NoImg_DC"]}
    config, ours = classifier_from_official(state)
    assert config == FeatureClassifierConfig(widths=(64, 128, 256, 512), classes=5)
    with torch.device("meta"):
        classifier = config.build()
    assert count_parameters(classifier) == counted["PromptIR_NoImg_DC_for_nafnet64"]
    classifier.load_state_dict(ours, strict=True, assign=True)
