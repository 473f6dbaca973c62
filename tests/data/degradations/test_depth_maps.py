"""Distances from files: which map is a photo's, which part of it, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from matlab_writing import matlab, matrix
from relume.core.errors import DataError
from relume.core.pictures import Picture, write
from relume.data.benchmarks import Damage, find_pairs
from relume.data.degradations.base import Place
from relume.data.degradations.depth_maps import DepthMaps, Distant
from relume.data.degradations.haze import HazeConfig
from relume.data.degradations.one_of import OneOfConfig
from relume.data.degradations.underwater import UnderwaterConfig
from relume.data.pairs import PairLoader
from relume.data.patches import PatchesConfig, PhotoList
from relume.data.preparation.reading import PieceList
from relume.data.preparation.running import PreparationConfig, prepare

HEIGHT, WIDTH = 40, 48
# Every pixel tells where it is, in metres.
METRES = 1 + torch.arange(HEIGHT * WIDTH).view(HEIGHT, WIDTH).double() / 100


class Silent:
    def begun(self, what: str, total: int) -> None: ...

    def done(self, source: str) -> None: ...


def photo(path: Path, level: float = 0.2, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Picture(pixels=torch.full((3, *size), level)), path)
    return path


def save_map(path: Path, metres: torch.Tensor = METRES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".npy":
            np.save(path, metres.float().numpy())
        case ".mat":
            path.write_bytes(matlab("<", matrix("<", "depth", metres.numpy()), packed=True))
        case _:
            write(Picture(pixels=(metres / metres.max()).float()[None], bits=16), path)
    return path


def whole(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Place:
    return Place.whole(path, size)


@pytest.mark.parametrize("ending", [".npy", ".mat", ".png", ".tif"])
def test_a_map_is_read_from_each_kind_of_file_as_shares_of_its_largest(tmp_path, ending):
    save_map(tmp_path / f"a{ending}")
    found = DepthMaps(tmp_path).at(whole(Path("photos/a.jpg")))
    assert found.shape == (1, HEIGHT, WIDTH)
    assert found.dtype == torch.float32
    assert (found[0] - METRES / METRES.max()).abs().max() < 1e-5


def test_pictures_of_8_bits_and_a_given_unit(tmp_path):
    levels = torch.arange(HEIGHT * WIDTH).view(1, HEIGHT, WIDTH) % 200
    write(Picture(pixels=levels / 255), tmp_path / "a.png")
    assert torch.allclose(DepthMaps(tmp_path, farthest=100).at(whole(Path("a.jpg"))), levels / 100)
    np.save(tmp_path / "b.npy", METRES.numpy())
    assert torch.allclose(DepthMaps(tmp_path, farthest=10).at(whole(Path("b.jpg")))[0].double(), METRES / 10)


def test_the_longest_name_that_fits_is_the_photos(tmp_path):
    for number, name in enumerate(("1.npy", "left/1.npy", "deep/left/2.npy"), 1):
        save_map(tmp_path / name, torch.full((HEIGHT, WIDTH), float(number)))
    maps = DepthMaps(tmp_path)
    assert maps.file(Path("/photos/1.jpg")) == tmp_path / "1.npy"
    assert maps.file(Path("/photos/left/1.jpg")) == tmp_path / "left/1.npy"
    assert maps.file(Path("deep/left/2.png")) == tmp_path / "deep/left/2.npy"
    with pytest.raises(DataError, match=r"holds no depth map of left/2\.png; add one as 2\.png"):
        maps.file(Path("left/2.png"))


def test_a_part_is_cut_turned_and_mirrored_as_its_picture(tmp_path):
    """Where the picture's own brightness is the distance, haze follows from each pixel alone."""
    shares = (METRES / METRES.max()).float()
    write(Picture(pixels=shares.expand(3, -1, -1), bits=16), tmp_path / "photos.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos.png").rename(tmp_path / "photos/a.png")
    save_map(tmp_path / "maps/a.npy")
    config = PatchesConfig(folders=(tmp_path / "photos",), patch=24, batch=16)
    haze = HazeConfig(depth_maps=tmp_path / "maps", density=1.5, airlight=0.9, tint=0).build(1)
    loader = PairLoader(PhotoList.find(config.folders), config, haze, scale=1, channels=3, seed=1)
    (batch,) = loader.batches(0, 1)
    passed = torch.exp(-1.5 * batch["target"])
    expected = batch["target"] * passed + 0.9 * (1 - passed)
    assert (batch["input"] - expected).abs().max() < 3 / 255
    # Other patches than these would not fit.
    assert (batch["input"] - expected.flip(-1)).abs().max() > 0.02
    # As loader workers have it.
    sent = pickle.loads(pickle.dumps(haze))
    (again,) = PairLoader(
        PhotoList.find(config.folders), config, sent, scale=1, channels=3, seed=1
    ).batches(0, 1)  # fmt: skip
    assert torch.equal(again["input"], batch["input"])


def test_pieces_of_a_photo_have_its_map(tmp_path):
    shares = (METRES / METRES.max()).float()
    (tmp_path / "photos/x").mkdir(parents=True)
    write(Picture(pixels=shares.expand(3, -1, -1), bits=16), tmp_path / "photos/x/a.png")
    save_map(tmp_path / "maps/x/a.npy")
    settings = PreparationConfig(side=32, overlap=16, least=8, blockiness=0, sharpness=0, form="npy")
    prepare(tmp_path / "photos", tmp_path / "ready", settings, Silent())
    pieces = PieceList.find((tmp_path / "ready",))
    assert pieces is not None
    assert len(pieces) > 1
    config = PatchesConfig(folders=(tmp_path / "ready",), patch=20, batch=16)
    haze = HazeConfig(depth_maps=tmp_path / "maps", density=1.5, airlight=0.9, tint=0).build(1)
    (batch,) = PairLoader(pieces, config, haze, scale=1, channels=3, seed=1).batches(0, 1)
    passed = torch.exp(-1.5 * batch["target"])
    assert (batch["input"] - batch["target"] * passed - 0.9 * (1 - passed)).abs().max() < 3 / 255


def test_haze_and_water_and_a_mixture_follow_the_map(tmp_path):
    high = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    save_map(tmp_path / "a.npy")
    distance = (METRES / METRES.max()).float()[None, None]
    place = whole(tmp_path / "a.jpg")
    for config in (HazeConfig, UnderwaterConfig):
        known = (
            config(depth_maps=tmp_path).build(1).at(place)(high, generator=torch.Generator().manual_seed(7))
        )
        given = config().build(1)(high, generator=torch.Generator().manual_seed(7), distance=distance)
        assert (known - given).abs().max() < 1e-5
        assert not torch.equal(known, config().build(1)(high, generator=torch.Generator().manual_seed(7)))
    kinds = ({"name": "haze", "depth_maps": str(tmp_path)}, "low-light")
    mixed = OneOfConfig.parse({"kinds": kinds}, where="test").build(1)
    plain = OneOfConfig.parse({"kinds": ("haze", "low-light")}, where="test").build(1)
    batch = high.repeat(8, 1, 1, 1)
    seen, kind = mixed.at(place).tell(batch, generator=torch.Generator().manual_seed(3))
    without, same = plain.tell(batch, generator=torch.Generator().manual_seed(3))
    assert torch.equal(kind, same)
    assert [torch.equal(*pair) for pair in zip(seen, without, strict=True)] == kind.bool().tolist()
    with pytest.raises(DataError, match="no depth map of b"):
        mixed.check(lambda: [(Path("b.jpg"), (HEIGHT, WIDTH))])


def test_benchmarks_are_damaged_by_their_maps(tmp_path):
    photo(tmp_path / "set/a.png")
    save_map(tmp_path / "maps/a.mat")
    haze = HazeConfig(depth_maps=tmp_path / "maps", density=1, airlight=1, tint=0).build(1)
    (pair,) = find_pairs(tmp_path / "set", scale=1, damage=Damage(function=haze))
    passed = torch.exp(-METRES / METRES.max()).float()
    assert (pair.low - 0.2 * passed - (1 - passed)).abs().max() < 1 / 255


@pytest.mark.parametrize("kind", ["photo", "cube"])
def test_what_is_held_out_has_its_part_of_the_map(tmp_path, kind):
    """Brightness is the distance, so that haze follows from each pixel of the part alone."""
    shares = (METRES / METRES.max()).float().expand(3 if kind == "photo" else 5, -1, -1)
    (tmp_path / "set").mkdir()
    if kind == "photo":
        write(Picture(pixels=shares, bits=16), tmp_path / "set/a.png")
    else:
        np.save(tmp_path / "set/a.npy", shares.permute(1, 2, 0).numpy())
    save_map(tmp_path / "maps/a.npy")
    known = Follows(DepthMaps(tmp_path / "maps"))
    (pair,) = find_pairs(
        tmp_path / "set", scale=1, damage=Damage(function=known), cubes=kind == "cube", held_out=0.25
    )
    assert pair.high.shape == (len(shares), 10, WIDTH)
    assert (pair.high - shares[:, 30:]).abs().max() < 1 / 255
    assert (pair.low - shares[:, 30:]).abs().max() < 1 / 255


class Follows(Distant):
    """Shows the distance itself."""

    def __call__(
        self, high: torch.Tensor, *, generator: torch.Generator, distance: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert distance is not None
        return distance.expand_as(high)


def test_trainings_on_cubes_find_the_maps_of_their_cubes(tmp_path):
    shares = (METRES / METRES.max()).float().expand(5, -1, -1)
    (tmp_path / "set").mkdir()
    np.save(tmp_path / "set/a.npy", shares.permute(1, 2, 0).numpy())
    save_map(tmp_path / "maps/a.mat")
    config = PatchesConfig(folders=(tmp_path / "set",), patch=16, batch=16, held_out=0.25)
    photos = PhotoList.find(config.folders, cubes=True)
    known = Follows(DepthMaps(tmp_path / "maps"))
    (batch,) = PairLoader(photos, config, known, scale=1, channels=5, seed=1, cubes=True).batches(0, 1)
    assert (batch["input"] - batch["target"]).abs().max() < 1e-6
    save_map(tmp_path / "maps/a.mat", METRES[:30])
    with pytest.raises(DataError, match=r"a\.mat is 48x30, but its photo .*a\.npy is 48x40"):
        PairLoader(
            photos, config, Follows(DepthMaps(tmp_path / "maps")), scale=1, channels=5, seed=1, cubes=True
        )


def test_a_map_for_a_single_photo(tmp_path):
    save_map(tmp_path / "any.npy")
    maps = DepthMaps(tmp_path / "any.npy")
    maps.check([(Path("a.jpg"), (HEIGHT, WIDTH))])
    # A photo that its header turns has its map turned as well.
    with pytest.raises(DataError, match=r"any\.npy is 48x40, but its photo a\.jpg is 40x48"):
        maps.check([(Path("a.jpg"), (WIDTH, HEIGHT))])
    with pytest.raises(DataError, match=r"any\.npy would be the depth map of a\.jpg and of b\.jpg"):
        maps.check([(Path("a.jpg"), (HEIGHT, WIDTH)), (Path("b.jpg"), (HEIGHT, WIDTH))])


def training(tmp_path: Path, **settings: object) -> PairLoader:
    config = PatchesConfig(folders=(tmp_path / "photos",), patch=16, batch=2)
    haze = HazeConfig.parse({"depth_maps": str(tmp_path / "maps"), **settings}, where="haze").build(1)
    return PairLoader(PhotoList.find(config.folders), config, haze, scale=1, channels=3, seed=1)


def test_what_cannot_be_is_told_before_the_first_step(tmp_path):
    photo(tmp_path / "photos/a.png")
    with pytest.raises(DataError, match=r"maps holds no depth map \(.*\.mat.*\); check depth_maps"):
        training(tmp_path)
    (tmp_path / "maps").mkdir()
    with pytest.raises(DataError, match="maps holds no depth map"):
        training(tmp_path)
    save_map(tmp_path / "maps/b.npy")
    with pytest.raises(DataError, match=r"maps holds no depth map of .*photos/a\.png; add one as a\.png"):
        training(tmp_path)
    for ending in (".npy", ".mat", ".png"):
        wrong = save_map(tmp_path / f"maps/a{ending}", METRES[:, :-8])
        with pytest.raises(DataError, match=r"is 40x40, but its photo .*a\.png is 48x40; .* resize it"):
            training(tmp_path)
        wrong.unlink()
    save_map(tmp_path / "maps/a.npy")
    training(tmp_path)
    save_map(tmp_path / "maps/a.png")
    with pytest.raises(DataError, match=r"a\.npy and .*a\.png are depth maps of one name"):
        training(tmp_path)


def test_a_turned_map_is_told_when_it_is_used(tmp_path):
    """A photo's header does not tell how it is turned."""
    photo(tmp_path / "photos/a.png")
    save_map(tmp_path / "maps/a.npy", METRES.T)
    with pytest.raises(DataError, match=r"is 40x48, but its photo .* is 48x40"):
        next(training(tmp_path).batches(0, 1))


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (METRES - 2, "no distances"),
        (METRES * torch.nan, "no distances"),
        (METRES * 0, "no distances"),
        (METRES.expand(3, -1, -1), "3x40x48; a depth map is one matrix"),
    ],
)
def test_numbers_that_are_no_distances(tmp_path, numbers, says):
    np.save(tmp_path / "a.npy", numbers.numpy())
    with pytest.raises(DataError, match=says):
        DepthMaps(tmp_path).at(whole(Path("a.jpg")))


def test_files_that_are_no_maps(tmp_path):
    write(Picture(pixels=torch.rand(3, HEIGHT, WIDTH)), tmp_path / "a.png")
    (tmp_path / "b.npy").write_bytes(b"no numbers")
    (tmp_path / "c.mat").write_bytes(
        matlab("<", matrix("<", "x", METRES.numpy()), matrix("<", "y", METRES.numpy()))
    )
    (tmp_path / "d.mat").write_bytes(matlab("<", matrix("<", "number", np.ones((1, 1)))))
    for name, says in (
        ("a", "in colour"),
        ("b", "cannot be read"),
        ("c", r"several matrices \(x, y\); save the depth map in it alone, or as 'depth'"),
        ("d", "no matrix of real numbers"),
    ):
        with pytest.raises(DataError, match=says):
            DepthMaps(tmp_path).at(whole(Path(f"{name}.jpg")))
    with pytest.raises(DataError, match="cannot be read"):
        DepthMaps(tmp_path).check([(Path("b.jpg"), (HEIGHT, WIDTH))])


def test_maps_are_kept_within_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr("relume.data.degradations.depth_maps._KEPT", 3 * HEIGHT * WIDTH * 4)
    for number in range(6):
        save_map(tmp_path / f"{number}.npy", METRES + number)
    maps = DepthMaps(tmp_path, farthest=1)
    for number in (0, 1, 2, 3, 4, 5, 0, 5):
        assert torch.equal(maps.at(whole(Path(f"{number}.jpg")))[0], (METRES + number).float())
        assert maps._held <= 3 * HEIGHT * WIDTH * 4
