"""Cubes in files of MATLAB, in both layouts, and of NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from matlab_writing import cells, matlab, matrix, save
from relume.core.cubes import CubeForm, read_cube, write_cube
from relume.core.errors import DataError, PictureError, RelumeError
from relume.core.matlab_file import read_arrays
from relume.core.pictures import (
    Canvas,
    Picture,
    memory_to_write,
    open_stored,
    pictures_in,
    read,
    read_size,
    write,
)

CUBE = np.arange(1, 4 * 3 * 5 + 1).reshape(4, 3, 5)  # rows, columns, bands
SET = Path(__file__).resolve().parents[3] / "shared" / "data" / "hsi" / "jasperRidge2_R198.mat"


def test_rows_columns_and_bands_come_out_as_bands_rows_columns(tmp_path):
    save(tmp_path / "cube.mat", {"cube": CUBE, "wavelengths": np.arange(5.0)})
    found = read_cube(tmp_path / "cube.mat")
    assert torch.equal(found.bands, torch.from_numpy(CUBE / 60).permute(2, 0, 1).float())
    assert found.form == CubeForm(peak=60, name="cube")
    assert found.beside == ("wavelengths",)


def test_pixels_column_after_column_are_put_in_place(tmp_path):
    pixels = CUBE.transpose(2, 1, 0).reshape(5, 12)
    save(tmp_path / "cube.mat", {"Y": pixels.astype(np.uint16), "nRow": 4, "nCol": 3})
    found = read_cube(tmp_path / "cube.mat")
    assert torch.equal(found.bands, torch.from_numpy(CUBE / 60).permute(2, 0, 1).float())
    assert found.form == CubeForm(peak=60, name="Y", flat=True)
    assert found.beside == ()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, ">f8"])
def test_numpy_files_hold_rows_columns_and_bands(tmp_path, kind):
    np.save(tmp_path / "cube.npy", CUBE.astype(kind))
    assert torch.equal(
        read_cube(tmp_path / "cube.npy").bands, torch.from_numpy(CUBE / 60).permute(2, 0, 1).float()
    )


@pytest.mark.parametrize("name", ["cube.mat", "flat.mat", "cube.npy"])
def test_what_is_read_is_written_back_in_its_units_and_layout(tmp_path, name):
    values = CUBE * 2.5
    if name == "cube.mat":
        save(tmp_path / name, {"scene": values, "labels": CUBE[..., 0]})
    elif name == "flat.mat":
        save(tmp_path / name, {"Y": values.transpose(2, 1, 0).reshape(5, 12), "nRow": 4, "nCol": 3})
    else:
        np.save(tmp_path / name, values)
    assert read_size(tmp_path / name, cubes=True) == (4, 3)
    found = read(tmp_path / name, cubes=True)
    assert (found.bits, found.channels, found.transparent) == (32, 5, False)
    assert found.notes == (("Not kept from the file: labels.",) if name == "cube.mat" else ())
    assert write(found, tmp_path / f"again{name}") == ()
    with open_stored(tmp_path / name, folder=tmp_path, memory=0, cubes=True) as stored:
        assert stored.canvas.folder == tmp_path
        write(stored, tmp_path / f"stored{name}")
    for again in (f"again{name}", f"stored{name}"):
        before, after = (read_cube(tmp_path / each) for each in (name, again))
        assert torch.equal(before.bands, after.bands)
        assert before.form == after.form
        assert after.beside == ()
        if name == "cube.npy":
            array = np.load(tmp_path / again)
            assert array.dtype == np.float32
            assert np.allclose(array, values, rtol=1e-6)
        else:
            arrays = read_arrays(tmp_path / again)
            assert arrays.keys() == ({"scene"} if name == "cube.mat" else {"Y", "nRow", "nCol"})
            theirs = read_arrays(tmp_path / name)
            assert all(torch.allclose(array, theirs[key], rtol=1e-6) for key, array in arrays.items())


def test_scipy_reads_what_is_written(tmp_path):
    scipy = pytest.importorskip("scipy.io")
    bands = torch.from_numpy(CUBE / 60).permute(2, 0, 1).float()
    write_cube(tmp_path / "cube.mat", bands, CubeForm(peak=60.0, name="scene"), kind="mat")
    assert np.allclose(scipy.loadmat(tmp_path / "cube.mat")["scene"], CUBE, rtol=1e-6)


def test_floats_are_neither_rounded_nor_limited_to_pictures_bands():
    torch.manual_seed(0)
    values = torch.rand(7, 3, 4)
    with Canvas.empty(3, 4, 7, 32) as canvas:
        canvas.put(0, values * 1.5)
        assert torch.equal(canvas.rows(0, 3), (values * 1.5).clamp(0, 1))
    with pytest.raises(ValueError, match="no canvas"):
        Canvas.empty(3, 4, 7, 16)


def test_pictures_and_cubes_do_not_take_each_others_names(tmp_path):
    cube = Picture(pixels=torch.rand(5, 4, 3), bits=32, cube=CubeForm())
    with pytest.raises(PictureError, match=r"a\.png: a cube cannot be written as PNG; use \.mat, \.npy"):
        write(cube, tmp_path / "a.png")
    with pytest.raises(PictureError, match=r"a\.mat: a picture cannot be written as MATLAB; use \.png"):
        write(Picture(pixels=torch.rand(3, 4, 4)), tmp_path / "a.mat")
    with pytest.raises(ValueError, match="32 of a cube"):
        Picture(pixels=torch.rand(5, 4, 3), bits=8, cube=CubeForm())
    assert list(tmp_path.iterdir()) == []
    np.save(tmp_path / "cube.npy", CUBE)
    for reading in (read, read_size, open_stored):
        with pytest.raises(PictureError, match="a file of NumPy, perhaps a hyperspectral cube"):
            reading(tmp_path / "cube.npy")


def test_folders_are_searched_for_cubes_only_where_these_are_wanted(tmp_path):
    np.save(tmp_path / "a.npy", CUBE)
    write(Picture(pixels=torch.rand(3, 4, 4)), tmp_path / "b.png")
    assert [path.name for path in pictures_in(tmp_path)] == ["b.png"]
    assert [path.name for path in pictures_in(tmp_path, endings=(".mat", ".npy"))] == ["a.npy"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (CUBE[0], "numbers of rows × columns × bands, found int64 of 3 × 5"),
        (CUBE.astype(complex), "found complex128"),
        (np.full((2, 2, 2), np.nan), "lie above zero"),
        (np.full((2, 2, 2), np.inf), "lie above zero"),
        (np.zeros((0, 2, 2)), "lie above zero"),
        (np.array([[[object()]]], dtype=object), "damaged NumPy file"),
    ],
)
def test_a_numpy_file_without_a_cube_is_refused(tmp_path, content, says):
    np.save(tmp_path / "cube.npy", content)
    with pytest.raises(DataError, match=says):
        read(tmp_path / "cube.npy", cubes=True)


def test_a_file_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "cube.npy", CUBE)
    (tmp_path / "short.npy").write_bytes((tmp_path / "cube.npy").read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged NumPy file"):
        read(tmp_path / "short.npy", cubes=True)
    (tmp_path / "old.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(600))
    with pytest.raises(RelumeError, match="'-v7'"):
        read(tmp_path / "old.mat", cubes=True)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"cube": CUBE[0]}, "found none"),
        ({"one": CUBE, "two": CUBE}, "found one, two; save the one that is meant alone"),
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
    cube = read_cube(SET).bands
    assert cube.shape == (198, 100, 100)
    shuffled = cube.flatten(1)[:, torch.randperm(10_000, generator=torch.Generator().manual_seed(0))]
    for dim in (1, 2):
        assert cube.diff(dim=dim).abs().mean() < 0.7 * shuffled.diff(dim=1).abs().mean()


def test_cubes_in_cells_are_named_but_not_taken(tmp_path):
    """They could not be written back as they were; beside a cube of its own, a cell array is one matrix."""
    packed = cells("<", "scenes", matrix("<", "", CUBE), matrix("<", "", CUBE))
    (tmp_path / "cells.mat").write_bytes(matlab("<", packed))
    with pytest.raises(DataError, match=r"found scenes\{1\}, scenes\{2\}; save the one that is meant alone"):
        read_cube(tmp_path / "cells.mat")
    (tmp_path / "both.mat").write_bytes(matlab("<", packed, matrix("<", "cube", CUBE)))
    found = read_cube(tmp_path / "both.mat")
    assert (found.form.name, found.beside) == ("cube", ("scenes",))


def test_a_cube_too_large_for_matlab_is_refused_before_it_is_made():
    assert memory_to_write("a.npy", 2000, 2000, 200, 32) == 3 * 4 * 2000 * 2000 * 200
    with pytest.raises(DataError, match=r"a\.mat: this cube has 3\.0 GiB, .* write \.npy"):
        memory_to_write("a.mat", 2000, 2000, 200, 32)
