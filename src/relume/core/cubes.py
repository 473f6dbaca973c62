"""Hyperspectral cubes from MATLAB's files, as tensors of bands.

A cube comes in one of two layouts: a matrix of three dimensions, rows × columns × bands; or, as sets for
unmixing spectra have it, "Y" of bands × pixels, column after column, beside "nRow" and "nCol".

Shapes: B bands, H W.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from relume.core.errors import DataError
from relume.core.matlab_file import read_arrays


def read_cube(path: Path) -> Tensor:
    """Return a cube as float32 `B H W`, over the largest value that it holds, so that it spans 0..1.

    Raises:
        CheckpointError: missing, damaged, or of another version of MATLAB's format.
        DataError: there is no cube in it, several, or one with negative values or none above zero.
    """
    arrays = read_arrays(path)
    if {"Y", "nRow", "nCol"} <= arrays.keys():
        rows, columns = (int(arrays[name].item()) for name in ("nRow", "nCol"))
        pixels = arrays["Y"]
        if pixels.ndim != 2 or pixels.shape[1] != rows * columns:
            raise DataError(f"{path}: Y of {tuple(pixels.shape)} does not hold {rows} × {columns} pixels")
        cube = pixels.unflatten(1, (columns, rows)).transpose(1, 2)
    else:
        cubes = {name: array for name, array in arrays.items() if array.ndim == 3}
        if len(cubes) != 1:
            found = ", ".join(cubes) or "none"
            raise DataError(f"{path} must hold one matrix of rows × columns × bands, found {found}")
        (cube,) = cubes.values()
        cube = cube.permute(2, 0, 1)
    if cube.min() < 0 or not cube.max() > 0:
        raise DataError(
            f"{path}: a cube's values lie above zero, these between {cube.min()} and {cube.max()}"
        )
    return (cube / cube.max()).to(torch.float32).contiguous()
