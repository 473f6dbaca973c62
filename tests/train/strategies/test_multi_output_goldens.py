"""Multi-output against what the authors' own code computes: networks of several pictures, and the losses."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from relume.models import zoo
from relume.nn.heads import ManyHeaded
from relume.train.strategies.multi_output import distances, nearest

NETWORKS = {
    "nafnet": "nafnet", "mhnafnet": "nafnet", "mhnafnet_combined": "nafnet", "mhnafnet_local": "nafnet",
    "mhhinet": "hinet", "mhrestormer": "restormer",
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_pictures_of_every_stage(name, shared):
    path = shared / "golden" / "multi_output" / f"{name}.safetensors"
    case = load_file(path)
    with safe_open(path, "pt") as file:
        arguments = json.loads(file.metadata()["kwargs"])
    state = {key.removeprefix("state/"): value for key, value in case.items() if key.startswith("state/")}
    system, official = zoo.recognise(state, path)
    assert system == NETWORKS[name]
    hidden = zoo.model_file(zoo.systems()[system]).OFFICIAL_SETTINGS
    changes = {ours: arguments[theirs] for theirs, ours in hidden.items() if theirs in arguments}
    network = zoo.build(official.config.override(changes, where=name), system=system).eval()
    network.load_state_dict(dict(official.state))
    assert isinstance(network, ManyHeaded)
    stages = network.stages(case["input"])
    recorded = [case[key] for key in sorted(case) if key.startswith("output")]
    for computed, expected in zip(stages, recorded, strict=True):
        pictures = expected if expected.ndim == 5 else expected[:, None]
        assert computed.shape == pictures.shape
        assert (computed - pictures).abs().max() <= 1e-5
    assert torch.equal(network(case["input"]), stages[-1][:, 0])


def test_losses(shared):
    case = load_file(shared / "golden" / "multi_output" / "loss.safetensors")
    pictures, target = case["input.pred"], case["input.target"]

    def close(some, high, recorded):
        loss = nearest(distances("psnr", some, high))
        assert abs(loss.double() - recorded.double()) <= 1e-5 * abs(recorded.double())

    close(pictures, target, case["output.mh"])
    close(pictures[:, :1], target, case["output.single"])
    # The authors' luma, in which they can train too, is of 0..1.
    weights = torch.tensor([65.481, 128.553, 24.966])

    def luma(some):
        return ((some.movedim(-3, -1) * weights).sum(-1, keepdim=True).movedim(-1, -3) + 16) / 255

    close(luma(pictures), luma(target), case["output.mh_y"])
