"""The authors' weights in our models give the figures on Set5 that they give in the authors' code."""

import json

import pytest
import torch
from official import SHARED, folders, read_case

from relume.core.catalogue import systems
from relume.data.benchmarks import find_pairs
from relume.insight.evaluate import evaluate
from relume.measures.protocols import protocol


def figures():
    for facts in (folder / "facts.json" for name in systems() for folder in folders(name)):
        for entry in json.loads(facts.read_text()).get("real_weights", []) if facts.exists() else []:
            path = facts.parent / f"official_{entry['variant']}.safetensors"
            if path.exists() and "set5_psnr_y_rgb" in entry:
                yield pytest.param(path, entry, id=f"{facts.parent.name}-{entry['variant']}")


FIGURES = list(figures())


@pytest.mark.skipif(not FIGURES, reason="the authors' weights (shared/weights) are not at hand")
@pytest.mark.parametrize(("path", "entry"), FIGURES)
def test_set5_is_the_authors(path, entry):
    network = read_case(path).network
    scale = network.contract.scale
    assert scale == entry["scale"]
    for name, wanted in zip(("sr-y", "sr-rgb"), entry["set5_psnr_y_rgb"], strict=True):
        pairs = find_pairs(SHARED / "data" / "sr" / "Set5", scale=scale)
        with torch.inference_mode():
            (mean,) = evaluate(network, pairs, scale=scale, protocol=protocol(name)).means
        assert mean.scores["psnr"] == pytest.approx(wanted, abs=0.01)
