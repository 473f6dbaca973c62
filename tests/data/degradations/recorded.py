"""What the authors' code gave, as their files hold it, and the forms that pictures have there and here."""

import json
from pathlib import Path

from safetensors import safe_open

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden" / "bsrgan"
CASES = sorted(GOLDEN.glob("*.safetensors"))


def read_case(path):
    """Return the tensors of a case by their names, its "class" and "kwargs"."""
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return {
        **tensors,
        "class": header["class"],
        "kwargs": json.loads(header["kwargs"]),
        "note": header["note"],
    }


def planes(picture):
    """Turn `H W C` into `C H W`."""
    return picture.movedim(-1, 0)


def hwc(picture):
    """Turn `C H W` into `H W C`."""
    return picture.movedim(0, -1)


def close(computed, recorded, what, tolerance=1e-4):
    difference = (computed.double() - recorded.double()).abs().max()
    assert difference <= tolerance, f"{what} differs by {difference:.2e}"
