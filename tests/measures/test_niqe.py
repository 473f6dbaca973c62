"""NIQE against its equations written out block by block, and on photos with known damage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from damaging import BUNDLED, SHARED, blurred, compressed, noisy, photo, shrunk
from hypothesis import given, settings
from hypothesis import strategies as st

import relume.measures.niqe as niqe_module
from relume.core.checkpoints import Header, read_header, write_checkpoint
from relume.core.errors import CheckpointError, DataError, PictureError
from relume.core.pictures import Picture, read, write
from relume.measures.gray import gray_levels
from relume.measures.niqe import (
    NaturalModel,
    block_features,
    default_model,
    fit,
    load_natural_model,
    main,
    niqe,
)
from relume.nn.colour import rgb_to_y
from relume.nn.resize import imresize


def texture(height, width, seed=0):
    """Something with detail of all sizes, in gray levels."""
    generator = np.random.default_rng(seed)
    picture = sum(
        np.kron(generator.normal(0, 12, (-(-height // size), -(-width // size))), np.ones((size, size)))[
            :height, :width
        ]
        for size in (1, 2, 5, 17, 40)
    )
    return torch.from_numpy(np.clip(np.round(picture + 128), 0, 255))


def _asymmetric(values):
    """The authors' fit: every shape of the grid tried."""
    gamma = np.vectorize(math.gamma)
    shapes = np.arange(9801) * 0.001 + 0.2
    spreads = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))
    left = np.sqrt(np.mean(values[values < 0] ** 2))
    right = np.sqrt(np.mean(values[values > 0] ** 2))
    ratio = left / right
    spread = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    spread *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = shapes[np.argmin((spreads - spread) ** 2)]
    scale = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    return shape, left * scale, right * scale


def _features_by_the_book(gray, side):
    """MSCN by a full 7 × 7 window, then 18 features of each block."""
    at = np.arange(-3, 4)
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    padded = np.pad(gray, 3, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
    mean = (views * window).sum((2, 3))
    contrast = np.sqrt(np.abs((views**2 * window).sum((2, 3)) - mean**2))
    structure = (gray - mean) / (contrast + 1)
    rows = []
    for top in range(0, gray.shape[0], side):
        for start in range(0, gray.shape[1], side):
            block = structure[top : top + side, start : start + side]
            shape, left, right = _asymmetric(block.ravel())
            row = [shape, (left + right) / 2]
            for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
                shape, left, right = _asymmetric((block * np.roll(block, shift, (0, 1))).ravel())
                row += [shape, (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape), left, right]
            rows.append(row)
    return np.array(rows)


def test_equals_the_equations():
    gray = texture(200, 300)
    model = NaturalModel(mean=torch.linspace(0, 1, 36).double(), covariance=torch.eye(36).double() / 9)
    whole = gray[:192, :288]
    half = imresize(whole, height=96, width=144)
    expected = np.hstack([_features_by_the_book(whole.numpy(), 96), _features_by_the_book(half.numpy(), 48)])
    features, _ = block_features(gray)
    assert np.allclose(features.numpy(), expected, atol=1e-9, rtol=0)
    away = expected.mean(0) - model.mean.numpy()
    covariance = (np.cov(expected, rowvar=False) + np.eye(36) / 9) / 2
    assert niqe(gray, model) == pytest.approx(math.sqrt(away @ np.linalg.pinv(covariance) @ away), abs=1e-8)


@given(st.floats(1e-3, 0.76))
@settings(max_examples=50, deadline=None)
def test_the_nearest_shape_is_the_nearest_of_all(spread):
    shapes, spreads = niqe_module._shape_grid()
    found = niqe_module._nearest_shape(torch.tensor([spread], dtype=torch.float64))
    assert found.item() == shapes[(spreads - spread).square().argmin()]


def test_published_value(shared):
    """MATLAB R2021a gives 5.72957338 for the luma of baboon under the authors' parameters."""
    parameters = shared / "golden" / "niqe" / "modelparameters.mat"
    if not parameters.is_file():
        pytest.skip(f"the authors' parameters are not at hand: {parameters}")
    picture = photo_whole(shared / "sr" / "Set14_HR" / "baboon.webp")
    gray = rgb_to_y((picture * 255).round(), peak=255)[0].round()
    assert niqe(gray, load_natural_model(parameters)) == pytest.approx(5.72957338, abs=1e-6)


def photo_whole(path):
    return read(path).pixels.double()


def test_the_shipped_model_gives_what_it_gave():
    model = default_model()
    assert torch.linalg.eigvalsh(model.covariance).min() > 0
    assert niqe(gray_levels(photo_whole(BUNDLED))) == pytest.approx(3.61145456, abs=1e-6)


def photos(shared=None):
    paths = [BUNDLED, *((shared / "data" / name for name in SHARED) if shared else ())]
    return [photo(path) for path in paths]


LADDERS = [
    pytest.param(blurred, (1, 2, 4), id="blur"),
    pytest.param(noisy, (5, 15, 30), id="noise"),
    pytest.param(compressed, (25, 10), id="jpeg"),  # it takes some of this for NIQE to mind
    pytest.param(shrunk, (2, 3), id="bicubic"),
]


@pytest.mark.parametrize(("damage", "strengths"), LADDERS)
def test_damage_is_worse_and_more_of_it_worse_still(damage, strengths):
    picture = photos()[0]
    values = [niqe(gray_levels(x)) for x in (picture, *(damage(picture, each) for each in strengths))]
    assert values == sorted(values)


@pytest.mark.parametrize(("damage", "strengths"), LADDERS)
def test_damage_is_worse_on_several_photos(shared, damage, strengths):
    for picture in photos(shared):
        values = [niqe(gray_levels(x)) for x in (picture, *(damage(picture, each) for each in strengths))]
        assert values == sorted(values)


def test_crops_of_a_photo_have_much_the_same_value():
    gray = gray_levels(photo_whole(BUNDLED))
    whole = niqe(gray)
    for top, left, height, width in (
        (0, 0, 384, 512),
        (64, 64, 448, 448),
        (20, 7, 480, 480),
        (0, 96, 500, 400),
    ):
        assert niqe(gray[top : top + height, left : left + width]) == pytest.approx(whole, abs=0.8)
    damaged = gray_levels(blurred(photo(BUNDLED), 2))
    assert niqe(damaged[:384, :384]) > whole + 3


def test_rows_and_columns_beyond_the_blocks_do_not_count():
    gray = texture(250, 301)
    assert niqe(gray) == niqe(gray[:192, :288])


@pytest.mark.parametrize("strip", [1, 30_000])
def test_working_in_strips_changes_nothing(monkeypatch, strip):
    gray = texture(400, 300)
    before, sharpness = block_features(gray)
    monkeypatch.setattr(niqe_module, "_STRIP", strip)
    after, sharpness_after = block_features(gray)
    # Not to the last bit: sums over blocks run in another order.
    assert torch.allclose(before, after, rtol=1e-11, atol=1e-14)
    assert torch.allclose(sharpness, sharpness_after, rtol=1e-13)


def test_flat_areas_are_left_out_and_flat_pictures_refused():
    gray = texture(288, 288)
    gray[:96] = 255
    features, _ = block_features(gray)
    assert features.isfinite().all(dim=1).tolist() == [False] * 3 + [True] * 6
    assert math.isfinite(niqe(gray))
    with pytest.raises(PictureError, match="flat"):
        niqe(torch.full((200, 200), 93.0))


@pytest.mark.parametrize(("height", "width"), [(95, 400), (400, 95), (8, 8)])
def test_small_pictures_are_refused(height, width):
    with pytest.raises(PictureError, match=f"96x96 pixels and this picture has {width}x{height}"):
        niqe(texture(height, width))


def test_one_block_is_enough():
    one = texture(96, 191)
    assert niqe(one) > 0
    with pytest.raises(ValueError, match="H × W"):
        niqe(one[None])


def test_gray_is_matlabs():
    # MATLAB: rgb2gray(uint8(cat(3, 10, 200, 30))) is 124, rgb2gray(uint8(cat(3, 255, 0, 0))) is 76.
    rgb = torch.tensor([[10.0, 255, 255], [200, 0, 255], [30, 0, 255]])[:, None] / 255
    assert gray_levels(rgb).tolist() == [[124, 76, 255]]
    assert gray_levels(torch.tensor([[[0.5004, -1, 2]]])).tolist() == [[128, 0, 255]]
    with pytest.raises(ValueError, match="1 or 3"):
        gray_levels(torch.rand(2, 4, 4))


def test_fitting_takes_the_sharp_blocks(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        gray = texture(480, 480, number)
        gray[:, 240:] = 128 + (gray[:, 240:] - 128) / 8  # the right half is dull
        write(Picture(pixels=gray.float()[None] / 255), folder / f"{number}.png")
    assert main([str(folder), "-o", str(tmp_path / "own.safetensors"), "--note", "made up"]) == 0
    assert "written:" in capsys.readouterr().out
    header = read_header(tmp_path / "own.safetensors")
    assert header.trained["photos"] == 5
    assert header.trained["note"] == "made up"
    assert 37 <= header.trained["blocks"] <= 5 * 15
    model = load_natural_model(tmp_path / "own.safetensors")
    natural, strange = niqe(texture(480, 480, 9), model), niqe(gray_levels(photo(BUNDLED)), model)
    assert natural < strange
    features, sharpness = block_features(texture(480, 480, 0))
    own, blocks = fit([texture(480, 480, number) for number in (0, 0)])
    sharp = features[sharpness > 0.75 * sharpness.max()]
    assert blocks == 2 * len(sharp)
    assert torch.allclose(own.mean, sharp.mean(0))


def test_fitting_refuses_too_little(tmp_path, capsys):
    with pytest.raises(DataError, match="37 is the least"):
        fit([texture(200, 200)])
    with pytest.raises(DataError):
        fit([])
    assert main([str(tmp_path), "-o", str(tmp_path / "own.safetensors")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path} is no folder with photos; name one\n"


def test_files_that_hold_no_model_are_told(tmp_path):
    path = tmp_path / "a.safetensors"
    state = {"mean": torch.zeros(36), "covariance": torch.zeros(36, 35)}
    write_checkpoint(path, state, Header(model="niqe", variant=None, config={}))
    with pytest.raises(CheckpointError, match=r"a\.safetensors holds no NIQE model that can be used"):
        load_natural_model(path)
    write_checkpoint(path, {"x": torch.zeros(1)}, Header(model="niqe", variant=None, config={}))
    with pytest.raises(CheckpointError, match="mu_prisparam"):
        load_natural_model(path)
    write_checkpoint(path, state, Header(model="cfsr", variant=None, config={}))
    with pytest.raises(CheckpointError, match="holds the model cfsr"):
        load_natural_model(path)
    with pytest.raises(CheckpointError, match="there is no file"):
        load_natural_model(tmp_path / "b.safetensors")
