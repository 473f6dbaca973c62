"""Training pairs: a pure function of seed and step, and exactly what the degradation says."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from relume.core.errors import DataError, RelumeError
from relume.core.pictures import Picture, read, write
from relume.data.benchmarks import find_pairs
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.degradations.one_of import OneOfConfig
from relume.data.pairs import PairLoader
from relume.data.patches import Patches, PatchesConfig, PhotoList, StepSampler
from relume.nn.colour import rgb_to_y
from relume.nn.resize import imresize, imresize_uint8


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "deeper").mkdir()
    for name, size in (("a.png", (60, 70)), ("b.png", (80, 64)), ("deeper/c.png", (64, 64))):
        write(Picture(pixels=torch.rand(3, *size)), tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def loader(folder, *, seed=1, **settings):
    config = PatchesConfig(folders=(folder,), patch=8, batch=4, **settings)
    photos = PhotoList.find(config.folders)
    return PairLoader(photos, config, BicubicConfig().build(2), scale=2, channels=3, seed=seed)


def equal(ours, theirs):
    return all(torch.equal(one[name], other[name])
               for one, other in zip(ours, theirs, strict=True) for name in ("input", "target"))  # fmt: skip


def test_photos_are_found_at_any_depth_in_a_fixed_order(folder):
    photos = PhotoList.find((folder,))
    assert [path.name for path in photos.paths] == ["a.png", "b.png", "c.png"]
    assert photos.digest == PhotoList.find((folder,)).digest
    (folder / "a.png").rename(folder / "z.png")
    assert photos.digest != PhotoList.find((folder,)).digest


def test_batches_depend_on_seed_and_step_alone(folder):
    whole = list(loader(folder).batches(0, 6))
    assert equal(whole[3:], list(loader(folder).batches(3, 6)))
    assert equal(whole, list(loader(folder, workers=2).batches(0, 6)))
    assert equal(whole, list(loader(folder, memory_gib=1e-6).batches(0, 6)))
    assert not equal(whole, list(loader(folder, seed=2).batches(0, 6)))
    assert not equal(whole[:1], whole[1:2])


class Noisy:
    """Random in each sample: noise of a random strength, and sometimes upside down."""

    margin = 1

    def __call__(self, high, *, generator):
        strength = torch.rand((), generator=generator)
        low = high[..., ::2, ::2] + strength * torch.randn(high[..., ::2, ::2].shape, generator=generator)
        return low.flip(2) if torch.rand((), generator=generator) < 0.5 else low


def noisy(folder, *, batch=4, workers=0):
    config = PatchesConfig(folders=(folder,), patch=8, batch=batch, workers=workers)
    return PairLoader(PhotoList.find(config.folders), config, Noisy(), scale=2, channels=3, seed=1)


def test_random_degradations_depend_on_the_sample_alone(folder):
    whole = list(noisy(folder).batches(0, 4))
    assert equal(whole[2:], list(noisy(folder).batches(2, 4)))
    shares = [list(noisy(folder).batches(0, 4, rank=rank, world=4)) for rank in range(4)]
    joined = [
        {name: torch.cat([share[step][name] for share in shares]) for name in whole[0]} for step in range(4)
    ]
    assert equal(whole, joined)
    assert equal([{name: torch.cat([batch[name] for batch in whole]) for name in whole[0]}],
                 list(noisy(folder, batch=16).batches(0, 1)))  # fmt: skip


def test_each_sample_is_degraded_differently(tmp_path):
    write(Picture(pixels=torch.full((3, 64, 64), 0.5)), tmp_path / "gray.png")
    (batch,) = noisy(tmp_path).batches(0, 1)
    assert len({sample.numpy().tobytes() for sample in batch["input"]}) == 4


def test_inputs_have_whole_8_bit_levels_within_range(folder):
    (batch,) = noisy(folder).batches(0, 1)
    levels = batch["input"] * 255
    assert batch["input"].dtype == torch.float32
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert 0 <= batch["input"].min() <= batch["input"].max() <= 1
    assert batch["input"].shape == (4, 3, 8, 8)
    assert batch["target"].shape == (4, 3, 16, 16)


def test_luma_is_that_of_the_pairs_in_colour(folder):
    """The degradation sees the colours, as it does in what users have."""
    config = PatchesConfig(folders=(folder,), patch=8, batch=4)
    photos = PhotoList.find(config.folders)

    def batch(**settings):
        source = PairLoader(photos, config, Noisy(), scale=2, seed=1, **settings)
        return next(source.batches(0, 1))

    colour, luma = batch(channels=3), batch(channels=1, luma=True)
    for name, shape in (("input", (4, 1, 8, 8)), ("target", (4, 1, 16, 16))):
        assert luma[name].shape == shape
        expected = rgb_to_y(colour[name] * 255, peak=255).round() / 255
        # A half may fall to either side.
        assert (luma[name] - expected).abs().max() <= 1.01 / 255
        assert (luma[name] - expected).abs().mean() <= 1e-4


def test_luma_of_gray_photos_is_that_of_their_copies_in_colour(tmp_path):
    write(Picture(pixels=torch.rand(1, 40, 40)), tmp_path / "gray.png")
    config = PatchesConfig(folders=(tmp_path,), patch=8, batch=2)
    photos = PhotoList.find(config.folders)
    settings = {"scale": 2, "channels": 1, "seed": 1}
    gray, luma = (
        next(PairLoader(photos, config, BicubicConfig().build(2), luma=luma, **settings).batches(0, 1))
        for luma in (False, True)
    )
    assert (luma["target"] * 255 - (gray["target"] * 219 + 16)).abs().max() <= 0.51


def test_a_model_of_gray_is_taught_by_gray_made_of_colour_before_it_is_damaged(folder):
    config = PatchesConfig(folders=(folder,), patch=8, batch=4)
    photos = PhotoList.find(config.folders)
    source = PairLoader(photos, config, BicubicConfig().build(2), scale=2, channels=1, seed=1)
    (batch,) = source.batches(0, 1)
    (colour,) = PairLoader(photos, config, BicubicConfig().build(2), scale=2, channels=3, seed=1).batches(
        0, 1
    )
    weights = torch.tensor([0.2989, 0.5870, 0.1140])[:, None, None]
    gray = (colour["target"] * 255 * weights).sum(1, keepdim=True).round()
    assert batch["target"].shape == (4, 1, 16, 16)
    assert (batch["target"] * 255 - gray).abs().max() <= 1.01
    assert (batch["target"] * 255 - gray).abs().mean() <= 0.01
    patches = Patches(photos, config, scale=2, margin=2, channels=1, seed=1)
    low = imresize_uint8(torch.stack([patches[index] for index in range(4)]), height=12, width=12)
    assert torch.equal(batch["input"], low[..., 2:10, 2:10] / 255)


def cubes(folder, *, held_out=0.0, rounded=False, patch=6, bands=5):
    """Pairs of one cube of `bands`, whose rows tell where they are from."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    values = torch.rand(40, 30, bands).numpy()
    values[..., 0] = np.arange(40)[:, None] / 40 + 1e-3
    values[0, 0, 1] = 1
    np.save(folder / "cube.npy", values * 1000)
    config = PatchesConfig(folders=(folder,), patch=patch, batch=8, held_out=held_out)
    photos = PhotoList.find(config.folders, cubes=True)
    degradation = BicubicConfig(rounded=rounded).build(2)
    return PairLoader(photos, config, degradation, scale=2, channels=bands, seed=1, cubes=True), values


def test_patches_of_cubes_are_floats_shrunk_as_such(tmp_path):
    source, values = cubes(tmp_path / "cubes")
    (batch,) = source.batches(0, 1)
    assert batch["target"].shape == (8, 5, 12, 12)
    assert batch["input"].shape == (8, 5, 6, 6)
    assert np.isin(batch["target"][:, 1].numpy(), values[..., 1].astype(np.float32)).mean() > 0.9
    # Inside, where the patch's edge is not seen, the input is the target shrunk.
    again = imresize(batch["target"], height=6, width=6)
    assert (again - batch["input"])[..., 2:4, 2:4].abs().max() < 1e-6
    rounded = (batch["input"] * 255).round() / 255
    assert (rounded - batch["input"]).abs().max() > 1e-3


def test_no_patch_comes_from_what_is_held_out(tmp_path):
    source, values = cubes(tmp_path / "cubes", held_out=0.3)
    lowest = max(float(batch["target"][:, 0].max()) for batch in source.batches(0, 40))
    # Four rows are the margin, from which the input is shrunk.
    assert lowest == pytest.approx(float(values[27 - 4, 0, 0]))
    (pair,) = find_pairs(tmp_path / "cubes", scale=2, cubes=True, held_out=0.3)
    assert float(pair.high[0].min()) == pytest.approx(float(values[28, 0, 0]))
    with pytest.raises(DataError) as caught:
        cubes(tmp_path / "cubes", held_out=0.6)
    assert str(caught.value) == (
        f"{tmp_path / 'cubes/cube.npy'} is 30x40 (30x16 without the 60% held out), too small for a patch of "
        "20x20 (data.patch=6 and a margin of 2 on each side, at scale 2); the largest that fits is "
        "--set data.patch=4, or take it out"
    )
    cubes(tmp_path / "cubes", held_out=0.6, patch=4)


@pytest.mark.parametrize("held_out", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["photo", "cube"])
def test_a_patch_lies_where_it_is_said_to_in_the_whole_of_its_file(tmp_path, kind, held_out):
    if kind == "cube":
        cubes(tmp_path / "data")
        (path,) = (tmp_path / "data").iterdir()
    else:
        path = tmp_path / "data" / "photo.png"
        path.parent.mkdir()
        write(Picture(pixels=torch.rand(3, 40, 30)), path)
    whole = read(path, cubes=True).pixels
    config = PatchesConfig(folders=(path.parent,), patch=6, batch=1, held_out=held_out)
    photos = PhotoList.find(config.folders, cubes=kind == "cube")
    patches = Patches(photos, config, scale=2, margin=2, channels=len(whole), seed=1, cubes=kind == "cube")
    for index in range(20):
        patch, place = patches.located(index)
        assert (place.photo, place.size, place.part) == (path, (40, 30), (20, 20))
        found = place.cut(whole)
        assert torch.equal(patch, found if kind == "cube" else found.mul(255).round().to(torch.uint8))
        assert place.top + 20 <= (40 if not held_out else 28)


def test_a_cube_of_other_bands_is_refused_with_the_way_out(tmp_path):
    cubes(tmp_path / "cubes")
    config = PatchesConfig(folders=(tmp_path / "cubes",), patch=6, batch=1)
    photos = PhotoList.find(config.folders, cubes=True)
    with pytest.raises(DataError, match=r"cube of 5 bands, but the model takes 31; .*network\.bands=5"):
        Patches(photos, config, scale=2, margin=0, channels=31, seed=1, cubes=True)[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no cube \(\.mat, \.npy\)"):
        PhotoList.find((tmp_path / "empty",), cubes=True)


def test_a_cube_is_read_once_for_its_size_and_its_patches(tmp_path):
    source, _ = cubes(tmp_path / "cubes")
    expected = source.some(3)
    again, _ = cubes(tmp_path / "cubes")
    config = PatchesConfig(folders=(tmp_path / "cubes",), patch=6)
    photos = PhotoList.find(config.folders, cubes=True)
    patches = Patches(photos, config, scale=2, margin=2, channels=5, seed=1, cubes=True)
    (path,) = photos.paths
    path.unlink()
    assert equal([again.some(3)], [expected])
    assert list(patches.sizes()) == [(path, (40, 30))]
    # Loader workers are sent none of it.
    with pytest.raises(RelumeError, match=r"cube\.npy: there is no such file"):
        pickle.loads(pickle.dumps(patches))[0]


def test_a_model_of_cubes_refuses_photos(folder):
    config = PatchesConfig(folders=(folder,), patch=8, batch=4)
    photos = PhotoList.find(config.folders)
    source = PairLoader(photos, config, BicubicConfig().build(2), scale=2, channels=31, seed=1, cubes=True)
    with pytest.raises(DataError, match=r"\.png is a photo, but the model takes cubes of 31 bands"):
        next(source.batches(0, 1))


def test_processes_share_the_batch_of_one(folder):
    (whole,) = loader(folder).batches(2, 3)
    shares = [next(iter(loader(folder).batches(2, 3, rank=rank, world=2))) for rank in (0, 1)]
    for name in ("input", "target"):
        assert torch.equal(torch.cat([share[name] for share in shares]), whole[name])


def test_input_is_the_shrunk_photo_not_the_shrunk_patch(folder):
    """Pixels near the border of a patch know the photo around it."""
    config = PatchesConfig(folders=(folder,), patch=8, batch=1)
    patches = Patches(PhotoList.find((folder,)), config, scale=2, margin=2, channels=3, seed=1)
    high = patches[0][None]
    (batch,) = PairLoader(
        patches.photos, config, BicubicConfig().build(2), scale=2, channels=3, seed=1
    ).batches(0, 1)
    low = imresize_uint8(high, height=12, width=12)
    assert torch.equal(batch["input"], low[..., 2:10, 2:10] / 255)
    assert torch.equal(batch["target"], high[..., 4:20, 4:20] / 255)
    assert batch["input"].shape == (1, 3, 8, 8)


def test_patches_are_cut_turned_and_mirrored_everywhere(folder):
    config = PatchesConfig(folders=(folder,), patch=4, batch=1)
    patches = Patches(PhotoList.find((folder,)), config, scale=1, margin=0, channels=3, seed=1)
    seen = {patches[index].numpy().tobytes() for index in range(64)}
    assert len(seen) > 60


@pytest.mark.parametrize(
    ("given", "message"),
    [((), "--data"), (("missing",), "not a folder"), (("empty",), "holds no picture")],
)
def test_folders_without_photos_are_refused(tmp_path, given, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        PhotoList.find(tuple(tmp_path / name for name in given))


def test_a_photo_that_is_too_small_is_named_before_the_first_step(folder):
    config = PatchesConfig(folders=(folder,), patch=30, batch=1)
    settings = {"scale": 2, "margin": 2, "channels": 3, "seed": 1}
    with pytest.raises(DataError) as caught:
        Patches(PhotoList.find((folder,)), config, **settings)
    assert str(caught.value) == (
        f"{folder / 'a.png'} is 70x60, too small for a patch of 68x68 (data.patch=30 and a margin of 2 on "
        "each side, at scale 2); the largest that fits is --set data.patch=26, or take it and 2 more out"
    )
    Patches(PhotoList.find((folder,)), config.model_copy(update={"patch": 26}), **settings)
    with pytest.raises(DataError, match=r"70x60.* \(data\.patch=27 and.* data\.patch=26, or take it out"):
        Patches(PhotoList.find((folder,)), config.model_copy(update={"patch": 27}), **settings)
    settings["margin"] = 20
    with pytest.raises(DataError, match=r"a\.png is .* \(data\.patch=8 and .*\); or take it and 2 more out"):
        Patches(PhotoList.find((folder,)), config.model_copy(update={"patch": 8}), **settings)


def test_a_photo_that_its_header_turns_is_judged_as_it_is_read(tmp_path):
    """Of 48 rows and 40 columns, a quarter turn makes 40 rows, of which 30 are not held out."""
    turned = Image.Exif()
    turned[0x0112] = 6
    gray = np.full((48, 40), 90, np.uint8)
    Image.fromarray(gray).save(tmp_path / "a.png", exif=turned)
    photos = PhotoList.find((tmp_path,))
    settings = {"scale": 2, "margin": 0, "channels": 3, "seed": 1}
    with pytest.raises(DataError) as caught:
        Patches(photos, PatchesConfig(patch=17, held_out=0.25), **settings)
    assert str(caught.value) == (
        f"{tmp_path / 'a.png'} is 48x40 (48x30 without the 25% held out), too small for a patch of 34x34 "
        "(data.patch=17, at scale 2); the largest that fits is --set data.patch=15, or take it out"
    )
    Image.fromarray(gray.T.copy()).save(tmp_path / "a.png", exif=turned)
    patches = Patches(photos, PatchesConfig(patch=18, held_out=0.25), **settings)
    assert list(patches.sizes()) == [(tmp_path / "a.png", (48, 40))]
    assert {patches[index].shape for index in range(20)} == {(3, 36, 36)}


def test_hidden_files_are_no_photos(folder):
    (folder / "._a.png").write_bytes(b"what macOS leaves")
    assert [path.name for path in PhotoList.find((folder,)).paths] == ["a.png", "b.png", "c.png"]


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(DataError, match="shared evenly by 3"):
        StepSampler(0, 1, 4, 0, 3)


def mixed(folder):
    config = PatchesConfig(folders=(folder,), patch=8, batch=8)
    kinds = ["noise", {"name": "low-light", "stops": 4}]
    degradation = OneOfConfig.parse({"kinds": kinds}, where="degradation").build(1)
    return PairLoader(PhotoList.find(config.folders), config, degradation, scale=1, channels=3, seed=1)


def test_a_degradation_that_tells_is_heard_with_each_sample(folder):
    whole = list(mixed(folder).batches(0, 4))
    for batch in whole:
        assert batch["kind"].dtype == torch.int64
        assert batch["kind"].shape == (8,)
        # Missing light darkens by far more than noise.
        darker = (batch["target"] - batch["input"]).mean((1, 2, 3)) > 0.15
        assert torch.equal(darker.long(), batch["kind"])
    assert len(torch.cat([batch["kind"] for batch in whole]).unique()) == 2
    again = list(mixed(folder).batches(2, 4))
    assert equal(whole[2:], again)
    assert all(torch.equal(one["kind"], other["kind"]) for one, other in zip(whole[2:], again, strict=True))
    shares = [next(mixed(folder).batches(0, 1, rank=rank, world=2))["kind"] for rank in range(2)]
    assert torch.equal(torch.cat(shares), whole[0]["kind"])


def test_others_tell_nothing(folder):
    assert next(loader(folder).batches(0, 1)).keys() == {"input", "target"}


def test_a_worker_tells_of_a_damaged_photo_as_the_process_itself_does(folder):
    content = (folder / "a.png").read_bytes()
    for name in ("a.png", "b.png", "deeper/c.png"):
        (folder / name).write_bytes(content[: len(content) // 2])
    said = []
    for workers in (0, 1):
        with pytest.raises(RelumeError, match=r"\.png: the PNG data is damaged") as caught:
            next(iter(loader(folder, workers=workers).batches(0, 1)))
        said.append(str(caught.value))
    assert said[0] == said[1]
