"""`relume evaluate` with the authors' weights gives the figures of the authors' tables."""

import json
import os
import subprocess
import sys

import pytest

# Set and scale: PSNR measured with the authors' code, and the SSIM of their table where there is one.
FIGURES = {
    ("Set5", 2): (38.07, None),
    ("Set5", 3): (34.50, None),
    ("Set5", 4): (32.33, 0.8964),
    ("Set14", 2): (33.74, None),
    ("Set14", 3): (30.44, None),
    ("Set14", 4): (28.73, 0.7842),
    ("B100", 4): (27.64, None),
}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_authors_weights_give_the_authors_figures(shared, tmp_path, scale):
    folders = {
        "Set5": shared / "data" / "sr" / "Set5",
        "Set14": shared / "data" / "sr" / "Set14_HR",
        "B100": shared / "data" / "train" / "BSDS500" / "val",
    }
    wanted = {name: figures for (name, at), figures in FIGURES.items() if at == scale}
    data = [part for name in wanted for part in ("--data", f"{name}={folders[name]}")]
    weights = shared / "weights" / f"cfsr_x{scale}.safetensors"
    done = subprocess.run(
        [sys.executable, "-m", "relume.apps.cli", "evaluate", str(weights), *data, "--output", "figures"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "figures").glob("*.json")
    measured = {entry["set"]: entry for entry in json.loads(path.read_text())["sets"]}
    for name, (psnr, ssim) in wanted.items():
        assert measured[name]["psnr"] == pytest.approx(psnr, abs=0.01)
        if ssim is not None:
            assert measured[name]["ssim"] == pytest.approx(ssim, abs=0.0005)
        assert name in done.stdout
