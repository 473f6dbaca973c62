"""Benchmark folders: every layout, what is cut and made, and what is refused in one line."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from relume.core.contract import Contract
from relume.core.errors import DataError
from relume.data.benchmarks import Damage, find_pairs
from relume.data.degradations.bsrgan import BSRGANConfig
from relume.nn.resize import imresize, imresize_uint8


def _save(path, height, width, *, gray=False, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if gray else (height, width, 3)
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return torch.from_numpy(levels if gray else levels.transpose(2, 0, 1).copy())


def test_plain_folder_is_cut_from_the_top_left_and_made_low(tmp_path):
    levels = _save(tmp_path / "b.png", 14, 17)
    _save(tmp_path / "a.png", 8, 8)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "._b.png").write_bytes(b"not a picture either")
    pairs = find_pairs(tmp_path, scale=4)
    assert [pair.name for pair in pairs] == ["a", "b"]
    assert len(pairs) == 2
    pair = pairs[1]
    assert pair.set_name == tmp_path.name
    assert pair.low_source == "made"
    assert (pair.low_path, pair.low_sha256) == (None, None)
    assert pair.high.dtype == pair.low.dtype == torch.float32
    assert torch.equal(pair.high, levels[:, :12, :16].float() / 255)
    assert torch.equal(pair.low, imresize_uint8(levels[:, :12, :16], height=3, width=4).float() / 255)
    assert pair.high_sha256 == hashlib.sha256((tmp_path / "b.png").read_bytes()).hexdigest()


def test_low_pictures_can_be_made_by_a_degradation_each_by_its_own_seed(tmp_path):
    high = _save(tmp_path / "a.png", 82, 91)
    _save(tmp_path / "b.png", 82, 91)  # the same picture, damaged otherwise
    degradation = BSRGANConfig().build(2)
    first, second = find_pairs(tmp_path, scale=2, damage=Damage(function=degradation, seed=5))
    margin = degradation.margin
    assert margin > 0
    generator = torch.Generator().manual_seed(5)
    expected = degradation(high[None, :, :, :90].float() / 255, generator=generator)[0]
    expected = expected.mul(255).round().div(255)[:, margin:-margin, margin:-margin]
    assert torch.equal(first.low, expected)
    assert torch.equal(first.high, high[:, 2 * margin : 82 - 2 * margin, 2 * margin : 90 - 2 * margin] / 255)
    assert not torch.equal(first.low, second.low)
    again = find_pairs(tmp_path, scale=2, damage=Damage(function=degradation, seed=5)).told("bsrgan")
    assert torch.equal(again[1].low, second.low)
    assert again[0].set_name == f"{tmp_path.name} (bsrgan)"
    _save(tmp_path / "c.png", 20, 90)
    with pytest.raises(DataError, match=r"c\.png is 90×20 pixels, but this degradation needs 34×34 at ×2"):
        find_pairs(tmp_path, scale=2, damage=Damage(function=degradation))[2]


@pytest.mark.parametrize(
    "low_name", ["baby.png", "babyx2.png", "baby_x2.png", "babyX2.png", "baby_LRBI_x2.png"]
)
def test_given_low_is_taken_whatever_its_suffix(tmp_path, low_name):
    _save(tmp_path / "Set5/HR/baby.png", 11, 8, seed=1)
    low = _save(tmp_path / f"Set5/LR_bicubic/X2/{low_name}", 5, 4, seed=2)
    (pair,) = find_pairs(tmp_path / "Set5", scale=2)
    assert pair.low_source == "given"
    assert pair.set_name == "Set5"
    assert pair.high.shape == (3, 10, 8)
    assert torch.equal(pair.low, low.float() / 255)
    assert pair.low_sha256 == hashlib.sha256(pair.low_path.read_bytes()).hexdigest()

    (made,) = find_pairs(tmp_path / "Set5", scale=2, always_make_low=True)
    assert made.low_source == "made"
    assert not torch.equal(made.low, pair.low)
    (other_scale,) = find_pairs(tmp_path / "Set5", scale=4)
    assert other_scale.low_source == "made"


def test_names_that_begin_alike_are_not_mixed_up(tmp_path):
    for number, name in enumerate(["img", "img_1", "img_10", "imgx2-0"]):
        _save(tmp_path / f"HR/{name}.png", 4, 4)
        _save(tmp_path / f"LR_bicubic/X2/{name}x2.png", 2, 2, seed=number)
    lows = {pair.name: pair.low_path.stem for pair in find_pairs(tmp_path, scale=2)}
    assert lows == {name: f"{name}x2" for name in ["img", "img_1", "img_10", "imgx2-0"]}


def test_folder_of_sets(tmp_path):
    _save(tmp_path / "Set5/HR/a.png", 4, 4)
    _save(tmp_path / "Set5/LR_bicubic/X2/ax2.png", 2, 2)
    _save(tmp_path / "Set14_HR/b.png", 4, 4)
    (tmp_path / "empty").mkdir()
    pairs = find_pairs(tmp_path, scale=2)
    assert [(p.set_name, p.name, p.low_source) for p in pairs] == [
        ("Set14_HR", "b", "made"),
        ("Set5", "a", "given"),
    ]
    assert [p.name for p in pairs[1:]] == ["a"]


def test_gray_is_replicated(tmp_path):
    levels = _save(tmp_path / "bridge.png", 8, 8, gray=True)
    (pair,) = find_pairs(tmp_path, scale=2)
    assert pair.high.shape == (3, 8, 8)
    assert pair.low.shape == (3, 4, 4)
    assert all(torch.equal(pair.high[c], levels.float() / 255) for c in range(3))


def test_low_of_the_wrong_size_is_refused_by_name_and_sizes(tmp_path):
    _save(tmp_path / "HR/baby.png", 8, 12)
    _save(tmp_path / "LR_bicubic/X2/babyx2.png", 4, 5)
    with pytest.raises(DataError, match=r"babyx2\.png is 5×4 pixels, but baby\.png at ×2 needs 6×4"):
        find_pairs(tmp_path, scale=2)[0]


def test_missing_low_is_refused(tmp_path):
    _save(tmp_path / "HR/baby.png", 8, 8)
    _save(tmp_path / "LR_bicubic/X2/birdx2.png", 4, 4)
    with pytest.raises(DataError, match=r"no picture for baby\.png"):
        find_pairs(tmp_path, scale=2)


def test_nothing_to_find_is_told_with_the_layouts(tmp_path):
    with pytest.raises(DataError, match=r"no pictures in .*HR/"):
        find_pairs(tmp_path, scale=2)
    with pytest.raises(DataError, match="not a folder"):
        find_pairs(tmp_path / "nowhere", scale=2)
    _save(tmp_path / "dot.png", 3, 9)
    with pytest.raises(DataError, match=r"dot\.png is 9×3 pixels"):
        find_pairs(tmp_path, scale=4)[0]
    with pytest.raises(ValueError, match="scale"):
        find_pairs(tmp_path, scale=0)


def test_shared_sets(shared):
    set5 = find_pairs(shared / "data/sr/Set5", scale=4)
    assert len(set5) == 5
    given, made = set5[0], find_pairs(shared / "data/sr/Set5", scale=4, always_make_low=True)[0]
    assert (given.low_source, made.low_source) == ("given", "made")
    assert torch.equal(given.low, made.low)
    bridge = next(
        files
        for files in find_pairs(shared / "data/sr/Set14_HR", scale=4).files
        if files.high_path.stem == "bridge"
    )
    assert bridge.load(scale=4).high.shape == (3, 512, 512)


def test_a_set_can_be_called_otherwise_than_its_folder(shared):
    pairs = find_pairs(shared / "data" / "sr" / "Set5", scale=4, name="five")
    assert {pair.set_name for pair in pairs.files} == {"five"}
    with pytest.raises(DataError, match="cannot all be called 'five'"):
        find_pairs(shared / "data" / "sr", scale=4, name="five")


def test_cubes_keep_their_floats_and_units(tmp_path):
    torch.manual_seed(0)
    values = torch.rand(13, 10, 5).numpy() * 700
    np.save(tmp_path / "scene.npy", values)
    _save(tmp_path / "photo.png", 8, 8)
    (pair,) = find_pairs(tmp_path, scale=2, cubes=True)
    high = torch.from_numpy(values / values.max()).permute(2, 0, 1)[:, :12]
    assert pair.cube
    assert torch.allclose(pair.high, high, atol=1e-6)
    assert torch.allclose(pair.low, imresize(high, height=6, width=5), atol=1e-5)
    bicubic = imresize(pair.low, height=12, width=10).clamp(0, 1)
    assert torch.equal(pair.bicubic(), bicubic)
    (single,) = find_pairs(tmp_path / "scene.npy", scale=2)
    assert (single.set_name, single.name) == ("scene", "scene")
    assert torch.equal(single.low, pair.low)
    # A given low cube may have another largest value than the high one.
    (tmp_path / "given/HR").mkdir(parents=True)
    (tmp_path / "given/LR_bicubic/X2").mkdir(parents=True)
    np.save(tmp_path / "given/HR/scene.npy", values)
    np.save(tmp_path / "given/LR_bicubic/X2/scene.npy", values[:6, :5] * 0.5)
    (given,) = find_pairs(tmp_path / "given", scale=2, cubes=True)
    assert given.low_source == "given"
    assert torch.allclose(given.low, high[:, :6, :5] * 0.5, atol=1e-6)


def test_the_held_out_part_alone_is_seen_and_no_given_picture(tmp_path):
    levels = _save(tmp_path / "HR/a.png", 21, 8)
    _save(tmp_path / "LR_bicubic/X2/a.png", 10, 4, seed=1)
    (pair,) = find_pairs(tmp_path, scale=2, held_out=0.5)
    assert torch.equal(pair.high, levels[:, 11:] / 255)
    assert torch.equal(pair.low, imresize_uint8(levels[:, 11:], height=5, width=4) / 255)
    noisy = _save(tmp_path / "LR_bicubic/X1/a.png", 21, 8, seed=2)
    (pair,) = find_pairs(tmp_path, scale=1, held_out=0.5)
    assert torch.equal(pair.high, levels[:, 11:] / 255)
    assert torch.equal(pair.low, noisy[:, 11:] / 255)


def test_a_model_and_a_pair_must_be_of_one_kind(tmp_path):
    np.save(tmp_path / "scene.npy", np.ones((4, 4, 5)))
    _save(tmp_path / "photo.png", 8, 8)
    cube, photo = find_pairs(tmp_path / "scene.npy", scale=2)[0], find_pairs(tmp_path, scale=2)[0]
    contracts = {channels: Contract(scale=2, channels=channels, halo=None) for channels in (1, 3, 5, 7)}
    assert cube.fitting(contracts[5]) is cube
    assert photo.fitting(contracts[3]) is photo.fitting(contracts[1]) is photo
    with pytest.raises(DataError, match=r"scene\.npy is a cube of 5 bands, but the model takes cubes of 7"):
        cube.fitting(contracts[7])
    with pytest.raises(DataError, match=r"scene\.npy is a cube of 5 bands, but the model takes pictures"):
        cube.fitting(contracts[3])
    with pytest.raises(DataError, match=r"photo\.png is a picture, but the model takes cubes of 7 bands"):
        photo.fitting(contracts[7])
    # Three bands are no colours.
    np.save(tmp_path / "three.npy", np.ones((4, 4, 3)))
    three, bands = find_pairs(tmp_path / "three.npy", scale=2)[0], replace(contracts[3], cubes=True)
    assert three.fitting(bands) is three
    with pytest.raises(DataError, match=r"three\.npy is a cube of 3 bands, but the model takes pictures"):
        three.fitting(contracts[3])
    with pytest.raises(DataError, match=r"photo\.png is a picture, but the model takes cubes of 3 bands"):
        photo.fitting(bands)
