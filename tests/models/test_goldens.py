"""Every model against outputs of its authors' own code.

A case that holds more than a picture in and a picture out, or was recorded in training mode, needs the
function `golden` in the model's own file, which gives tensors by the names that the case has for them.
Discriminators are no models; theirs are in tests/nn/test_discriminators.py.
"""

import pytest
import torch
from official import folders, read_case
from safetensors import safe_open

from relume.core.catalogue import systems


def is_of_a_model(path):
    with safe_open(path, "pt") as file:
        return not file.metadata()["class"].startswith("Discriminator")


CASES = [
    pytest.param(name, path, id=f"{folder.name}-{path.stem}")
    for name, system in systems().items()
    if system.variants
    for folder in folders(name)
    for path in sorted(folder.glob("*.safetensors"))
    if is_of_a_model(path)
]


@pytest.mark.skipif(not CASES, reason="the authors' outputs (shared/golden) are not at hand")
@pytest.mark.parametrize(("name", "path"), CASES)
def test_reproduces_the_authors_output(name, path):
    network, module, system, metadata, recorded = read_case(path)
    # A system's folder may hold cases of another's network, which stands in its code.
    assert system == (metadata["class"] if metadata["class"] in systems() else name)
    x = recorded.pop("input")
    with torch.no_grad():
        if hasattr(module, "golden"):
            computed = module.golden(network, metadata, x)
        else:
            computed = {"output": network(x)}
    assert computed.keys() == recorded.keys()
    for key, value in recorded.items():
        assert (computed[key].double() - value.double()).abs().max() <= 1e-4, key
