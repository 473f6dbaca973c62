"""Hyperspectral cubes in files of MATLAB and NumPy, as tensors of bands.

A cube comes in one of two layouts: a matrix of three dimensions, rows × columns × bands; or, as sets for
unmixing spectra have it, "Y" of bands × pixels, column after column, beside "nRow" and "nCol". In a `.npy`
it is rows × columns × bands.

Shapes: B bands, H W.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from relume.core.errors import DataError
from relume.core.files import reason
from relume.core.matlab_file import LONGEST, read_arrays, write_arrays

_FLAT = ("Y", "nRow", "nCol")
"""The matrices of the flat layout."""


@dataclass(frozen=True, kw_only=True)
class CubeForm:
    """What a file says of a cube beside its bands, so that one like it can be written.

    Attributes:
        peak: the file's value that 1 stands for.
        name: of its matrix; a `.npy` has none.
        flat: whether it is kept as "Y" beside "nRow" and "nCol".
    """

    peak: float = 1.0
    name: str = "cube"
    flat: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Cube:
    """What one file held.

    Attributes:
        bands: float32 `B H W`, over the largest value of the file, so that they span 0..1.
        form: how the file keeps them.
        beside: names of the other matrices in the file.
    """

    bands: Tensor
    form: CubeForm = CubeForm()
    beside: tuple[str, ...] = ()


def read_cube(path: Path) -> Cube:
    """Read the cube of a `.mat`, or of a `.npy` if it begins as one.

    Raises:
        CheckpointError: a `.mat` is missing, damaged, or of another version of MATLAB's format.
        DataError: there is no cube in it, several, or one with negative values or none above zero.
    """
    cube, name, flat, beside = _from_numpy(path) if _is_numpy(path) else _from_matlab(path)
    lowest, peak = (float(value) for value in cube.aminmax()) if cube.numel() else (math.nan, math.nan)
    if not (lowest >= 0 and 0 < peak < math.inf):
        raise DataError(f"{path}: a cube's values lie above zero, these between {lowest:g} and {peak:g}")
    bands = (cube / peak).to(torch.float32).contiguous()
    return Cube(bands=bands, form=CubeForm(peak=peak, name=name, flat=flat), beside=beside)


def write_cube(path: Path, bands: Tensor, form: CubeForm, *, kind: str) -> None:
    """Write a cube in single precision, in the units and the layout that the form tells.

    Args:
        path: the file, which is replaced.
        bands: float32 `B H W`, in units of the form's peak.
        form: its units and layout.
        kind: "mat" or "npy".

    Raises:
        OSError: the file cannot be written.
    """
    values = (bands * form.peak).numpy()
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.ascontiguousarray(values.transpose(1, 2, 0)))
    elif form.flat:
        count, rows, columns = values.shape
        pixels = values.transpose(0, 2, 1).reshape(count, columns * rows)
        sides = (np.array([[side]], np.float64) for side in (rows, columns))
        write_arrays(path, dict(zip(_FLAT, (pixels, *sides), strict=True)))
    else:
        write_arrays(path, {form.name: values.transpose(1, 2, 0)})


def refuse_too_long(path: Path, size: int) -> None:
    """See whether a file of that name holds a cube of so many bytes.

    Raises:
        DataError: it is MATLAB's, and does not.
    """
    if path.suffix.lower() == ".mat" and size > LONGEST:
        raise DataError(
            f"{path}: this cube has {size / 2**30:.1f} GiB, and a matrix of a .mat less than 2; write .npy"
        )


def _is_numpy(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(6) == b"\x93NUMPY"
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from error


def _from_numpy(path: Path) -> tuple[Tensor, str, bool, tuple[str, ...]]:
    """Return the values `B H W`, in float64, and what `Cube` and its form tell beside."""
    try:
        # Mapped, so that a header cannot claim more than the file has.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise DataError(f"{path} is a damaged NumPy file ({error}); get the file anew") from error
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        found = f"{array.dtype} of {' × '.join(map(str, array.shape))}"
        raise DataError(f"{path} must hold numbers of rows × columns × bands, found {found}")
    cube = torch.from_numpy(array.transpose(2, 0, 1).astype(np.float64))
    return cube, CubeForm().name, False, ()


def _from_matlab(path: Path) -> tuple[Tensor, str, bool, tuple[str, ...]]:
    """Return the same of a MATLAB file."""
    arrays = read_arrays(path)
    flat = set(_FLAT) <= arrays.keys()
    if flat:
        name = _FLAT[0]
        rows, columns = (int(arrays[side].flatten()[0]) if arrays[side].numel() else 0 for side in _FLAT[1:])
        pixels = arrays[name]
        if pixels.ndim != 2 or pixels.shape[1] != rows * columns:
            raise DataError(f"{path}: Y of {tuple(pixels.shape)} does not hold {rows} × {columns} pixels")
        cube = pixels.unflatten(1, (columns, rows)).transpose(1, 2)
    else:
        held = [name for name, array in arrays.items() if array.ndim == 3]
        # What lies in a cell array could not be written back into one.
        cubes = [name for name in held if "{" not in name]
        if len(cubes) != 1:
            found = ", ".join(cubes or held) or "none"
            advice = "; save the one that is meant alone" if held else ""
            raise DataError(f"{path} must hold one matrix of rows × columns × bands, found {found}{advice}")
        (name,) = cubes
        cube = arrays[name].permute(2, 0, 1)
    own = _FLAT if flat else (name,)
    # A cell array is one matrix, however many its cells.
    beside = dict.fromkeys(other.partition("{")[0] for other in arrays if other not in own)
    return cube, name, flat, tuple(beside)
