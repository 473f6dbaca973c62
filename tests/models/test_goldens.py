"""Every model against outputs of its authors' own code.

A case that holds more than a picture in and a picture out, or was recorded in training mode, needs the
function `golden` in the model's own file, which gives tensors by the names that the case has for them.
"""

import pytest
import torch
from official import SHARED, read_case

from relume.core.catalogue import systems

CASES = [
    pytest.param(name, path, id=f"{name}-{path.stem}")
    for name, system in systems().items()
    if system.variants
    for path in sorted((SHARED / "golden" / name).glob("*.safetensors"))
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
