"""MATLAB's files, written byte by byte as the format's description has them."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matlab_writing import cells, matlab, matrix
from relume.core.errors import CheckpointError
from relume.core.matlab_file import read_arrays
from relume.measures.niqe import load_natural_model


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_reads_what_was_written(tmp_path, order, packed):
    first = np.arange(12.0).reshape(3, 4) / 7
    small = np.array([[3]])
    content = matlab(
        order,
        matrix(order, "first_name", first),
        matrix(order, "text", np.array([[65, 66]]), kind=4, code="u2", mclass=4),
        matrix(order, "imaginary", first, flags=8),
        matrix(order, "b", small, kind=2, code="u1"),  # MATLAB stores whole numbers small, and in the tag
        packed=packed,
    )
    (tmp_path / "a.mat").write_bytes(content)
    arrays = read_arrays(tmp_path / "a.mat")
    assert list(arrays) == ["first_name", "b"]
    assert torch.equal(arrays["first_name"], torch.from_numpy(first))
    assert arrays["b"].tolist() == [[3.0]]


def test_cells_are_told_one_by_one(tmp_path):
    inner = [np.arange(4.0).reshape(2, 2), np.arange(9.0).reshape(3, 3)]
    parts = [matrix("<", "", each) for each in inner]
    deeper = cells("<", "", parts[1])
    (tmp_path / "a.mat").write_bytes(matlab("<", cells("<", "all", parts[0], deeper), parts[1], packed=True))
    arrays = read_arrays(tmp_path / "a.mat")
    assert list(arrays) == ["all{1}", "all{2}{1}", ""]
    assert [array.tolist() for array in arrays.values()] == [each.tolist() for each in (*inner, inner[1])]
    for _ in range(100):
        deeper = cells("<", "", deeper)
    (tmp_path / "a.mat").write_bytes(matlab("<", deeper))
    with pytest.raises(CheckpointError, match="deep in each other"):
        read_arrays(tmp_path / "a.mat")


def test_the_authors_parameters_become_a_model(tmp_path):
    covariance = np.eye(36) * 2
    content = matlab(
        "<", matrix("<", "mu_prisparam", np.arange(36.0)[None]), matrix("<", "cov_prisparam", covariance)
    )
    (tmp_path / "modelparameters.mat").write_bytes(content)
    model = load_natural_model(tmp_path / "modelparameters.mat")
    assert model.mean.tolist() == list(range(36))
    assert torch.equal(model.covariance, torch.from_numpy(covariance))
    (tmp_path / "other.mat").write_bytes(matlab("<", matrix("<", "x", covariance)))
    with pytest.raises(CheckpointError, match="needs mu_prisparam"):
        load_natural_model(tmp_path / "other.mat")


def test_what_is_no_such_file_is_told(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_arrays(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform".ljust(600, b" "))
    with pytest.raises(CheckpointError, match="-v7"):
        read_arrays(path)
    path.write_bytes(b"GIF89a")
    with pytest.raises(CheckpointError, match="no MATLAB file"):
        read_arrays(path)


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("relume.core.matlab_file._MOST", 1 << 16)
    content = matlab("<", matrix("<", "x", np.zeros((200, 200))), packed=True)
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(CheckpointError, match="unpack to more"):
        read_arrays(tmp_path / "a.mat")


_WHOLE = matlab("<", matrix("<", "name", np.arange(30.0).reshape(5, 6)), packed=False)
_PACKED = matlab("<", matrix("<", "name", np.arange(30.0).reshape(5, 6)), packed=True)
_CELLS = matlab("<", cells("<", "name", *[matrix("<", "", np.arange(6.0).reshape(2, 3))] * 2))


@given(
    st.sampled_from([_WHOLE, _PACKED, _CELLS]),
    st.integers(128, 400),
    st.binary(min_size=1, max_size=6),
    st.booleans(),
)
def test_damage_is_told_or_does_no_harm(tmp_path_factory, content, at, noise, cut):
    at = min(at, len(content) - 1)
    path = tmp_path_factory.mktemp("damaged") / "a.mat"
    path.write_bytes(content[:at] + (b"" if cut else noise + content[at + len(noise) :]))
    with contextlib.suppress(CheckpointError):  # anything else is a bug of the reader
        read_arrays(path)
