"""Every model against outputs of its authors' own code."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from relume.core.catalogue import systems
from relume.core.checkpoints import read_tensors
from relume.models import zoo

SHARED = Path(__file__).resolve().parents[3] / "shared"
CASES = [
    pytest.param(name, path, id=f"{name}-{path.stem}")
    for name in systems()
    for path in sorted((SHARED / "golden" / name).glob("*.safetensors"))
]


@pytest.mark.skipif(not CASES, reason="the authors' outputs (shared/golden) are not at hand")
@pytest.mark.parametrize(("name", "path"), CASES)
def test_reproduces_the_authors_output(name, path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    if not state:
        state = read_tensors(SHARED / "weights" / f"{path.stem.replace('official', name)}.safetensors")
    recognised, official = zoo.recognise(state, path)
    assert recognised == name
    arguments = json.loads(metadata["kwargs"])
    hidden = zoo.model_file(systems()[name]).OFFICIAL_SETTINGS
    changes = {ours: arguments[theirs] for theirs, ours in hidden.items() if theirs in arguments}
    config = official.config.override(changes, where=name)
    network = zoo.build(config, system=name, steps=official.steps).eval()
    network.load_state_dict(dict(official.state))
    with torch.no_grad():
        output = network(tensors["input"])
    assert (output - tensors["output"]).abs().max() <= 1e-4
