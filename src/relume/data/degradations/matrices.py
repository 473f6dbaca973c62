"""Matrices of numbers that come with pictures, such as kernels and depth maps: `.npy` and MATLAB's `.mat`.

A `.npy` holds one array. A `.mat` holds any number, by their names: the one that is not a number or a list is
meant, and among several, the one of a name that such files have for what is wanted.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from relume.core.errors import CheckpointError, DataError
from relume.core.matlab_file import read_arrays

SUFFIXES = (".mat", ".npy")


def read_matrices(file: Path, *, what: str, names: Collection[str]) -> list[Tensor]:
    """Read what is wanted of a file: one array, or several that a `.mat` holds as one cell array or by names.

    Args:
        file: `.npy` or `.mat`.
        what: what is wanted, for messages ("kernels").
        names: what it is called in a `.mat` that holds other matrices as well, in small letters.

    Returns:
        float64, of two dimensions or more.

    Raises:
        DataError: the file cannot be read, or does not tell which matrix is meant.
    """
    if file.suffix.lower() == ".npy":
        try:
            return [torch.from_numpy(np.load(file, allow_pickle=False).astype(np.float64))]
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise DataError(f"the {what} {file} cannot be read: {error}; save them by numpy.save") from error
    try:
        arrays = read_arrays(file)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    # Cells of one array are called name{1}, name{2} …
    found: dict[str, list[Tensor]] = {}
    for name, values in arrays.items():
        if sum(side > 1 for side in values.shape) > 1 or "{" in name:
            found.setdefault(name.partition("{")[0], []).append(values)
    if len(found) > 1:
        found = {name: values for name, values in found.items() if name.lower() in names} or found
    if len(found) != 1:
        held = f"holds several matrices ({', '.join(found)})" if found else "holds no matrix of real numbers"
        raise DataError(f"{file} {held}; save the {what} in it alone, or as {next(iter(names))!r}")
    return next(iter(found.values()))
