"""Cubes from MATLAB's files, in both layouts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from matlab_writing import save
from relume.core.cubes import read_cube
from relume.core.errors import DataError

CUBE = np.arange(1, 4 * 3 * 5 + 1).reshape(4, 3, 5)  # rows, columns, bands
SET = Path(__file__).resolve().parents[3] / "shared" / "data" / "hsi" / "jasperRidge2_R198.mat"


def test_rows_columns_and_bands_come_out_as_bands_rows_columns(tmp_path):
    save(tmp_path / "cube.mat", {"cube": CUBE, "wavelengths": np.arange(5.0)})
    found = read_cube(tmp_path / "cube.mat")
    assert torch.equal(found, torch.from_numpy(CUBE / 60).permute(2, 0, 1).float())


def test_pixels_column_after_column_are_put_in_place(tmp_path):
    pixels = CUBE.transpose(2, 1, 0).reshape(5, 12)
    save(tmp_path / "cube.mat", {"Y": pixels.astype(np.uint16), "nRow": 4, "nCol": 3})
    assert torch.equal(read_cube(tmp_path / "cube.mat"), torch.from_numpy(CUBE / 60).permute(2, 0, 1).float())


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"cube": CUBE[0]}, "found none"),
        ({"one": CUBE, "two": CUBE}, "found one, two"),
        ({"Y": CUBE[0], "nRow": 2, "nCol": 2}, "does not hold 2 × 2"),
        ({"cube": -CUBE}, "lie above zero"),
        ({"cube": CUBE * 0.0}, "lie above zero"),
    ],
)
def test_what_is_no_cube_is_refused(tmp_path, arrays, says):
    save(tmp_path / "cube.mat", arrays)
    with pytest.raises(DataError, match=says):
        read_cube(tmp_path / "cube.mat")


@pytest.mark.skipif(not SET.exists(), reason="the cube (shared/data/hsi) is not at hand")
def test_neighbours_of_a_real_cube_are_alike():
    cube = read_cube(SET)
    assert cube.shape == (198, 100, 100)
    shuffled = cube.flatten(1)[:, torch.randperm(10_000, generator=torch.Generator().manual_seed(0))]
    for dim in (1, 2):
        assert cube.diff(dim=dim).abs().mean() < 0.7 * shuffled.diff(dim=1).abs().mean()
