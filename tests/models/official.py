"""The authors' recorded cases, built as our networks."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from safetensors import safe_open

from relume.core.catalogue import systems
from relume.core.checkpoints import read_tensors
from relume.core.config import Config
from relume.core.variants import Official
from relume.models import zoo
from relume.nn.network import Network

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = SHARED / "golden"

# Folders of recorded cases that bear another name than the system.
_FOLDERS = {"srgan": ("srgan_leftthomas", "srresnet_lornatang")}


def folders(system: str) -> list[Path]:
    """Where a system's recorded cases may lie."""
    return [GOLDEN / folder for folder in _FOLDERS.get(system, (system,))]


class Case(NamedTuple):
    """One recorded case: our network with its weights, what was recorded, and who made it."""

    network: Network
    module: ModuleType
    system: str
    metadata: dict[str, str]
    tensors: dict[str, torch.Tensor]


def read_case(path: Path) -> Case:
    """Read a case and build its network, with the settings that its header names beside the weights."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    system, official = zoo.recognise(state or read_tensors(_weights(metadata)), path)
    module = zoo.model_file(systems()[system])
    # What keeps its size may say no scale.
    arguments = {"scale": int(metadata["scale"])} if metadata.get("scale") else {}
    for part in ("kwargs", "pipeline"):
        for name, value in json.loads(metadata.get(part) or "{}").items():
            nested = value if isinstance(value, dict) else {}
            arguments |= {name: value, **{f"{name}.{inner}": each for inner, each in nested.items()}}
    hidden = module.OFFICIAL_SETTINGS
    changes = {ours: arguments[theirs] for theirs, ours in hidden.items() if theirs in arguments}
    config = official.config.override(changes, where=system)
    network = zoo.build(config, system=system, steps=official.steps).eval()
    network.load_state_dict(dict(official.state))
    recorded = {key: value for key, value in tensors.items() if "/" not in key}
    return Case(network, module, system, metadata, recorded)


def check_read(official: Official | None, network: Network, *, config: Config | None = None) -> None:
    """Check that what was read off an authors' checkpoint is the network that was written as one.

    Args:
        official: what `from_official` gave.
        network: the network; on the device "meta" it has no values to compare.
        config: the settings to be read, where those are not the network's.
    """
    assert official is not None
    assert official.config == (config or network.config)
    state = network.state_dict()
    assert {key: value.shape for key, value in official.state.items()} == {
        key: value.shape for key, value in state.items()
    }
    assert all(value.is_meta or torch.equal(official.state[key], value) for key, value in state.items())


def without(state: Mapping[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """Return what of a checkpoint has names without a part."""
    return {key: value for key, value in state.items() if part not in key}


def authors_shapes(system: str) -> dict[str, list[int]]:
    """Return the shapes in the authors' own checkpoint, by key; skips the test where there is none."""
    facts = GOLDEN / system / "facts.json"
    if not facts.exists():
        pytest.skip("the authors' lists of keys (shared/golden) are not at hand")
    return {key: shape for key, shape, _ in json.loads(facts.read_text())["state_keys"]}


def _weights(metadata: dict[str, str]) -> Path:
    """Find the file that a case with real weights names, whatever the case of its letters."""
    wanted = Path(metadata.get("weights_file") or metadata["weights"]).name.lower()
    (found,) = [path for path in (SHARED / "weights").iterdir() if path.name.lower() == wanted]
    return found
