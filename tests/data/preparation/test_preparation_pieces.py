"""Preparing photos for training: how they are cut, what is written, and the patches read from it."""

import json
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from preparing import SMALL, Listening, levels_of, reasons, run, save, scene

from relume.core.errors import ConfigError, DataError
from relume.core.pictures import Picture, read, write
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.pairs import PairLoader
from relume.data.patches import Patches, PatchesConfig, PhotoList
from relume.data.preparation.cutting import boxes, starts
from relume.data.preparation.judging import PreparationConfig
from relume.data.preparation.reading import PieceList, PiecePatches
from relume.data.preparation.records import write_table
from relume.data.preparation.running import prepare


@given(some.integers(1, 2000), some.integers(1, 300), some.data())
def test_pieces_cover_an_edge_evenly_and_overlap_enough(length, side, data):
    overlap = data.draw(some.integers(0, side - 1))
    found = starts(length, side, overlap)
    assert found[0] == 0
    assert found[-1] + min(side, length) == length
    steps = np.diff(found)
    assert (steps <= side - overlap).all()
    assert (steps > 0).all()
    if len(found) > 1:
        assert steps.max() - steps.min() <= 1
        # One piece fewer would not be enough.
        assert (len(found) - 2) * (side - overlap) + side < length


@given(some.integers(1, 90), some.integers(1, 90), some.integers(1, 40), some.data())
def test_pieces_cover_every_pixel_and_have_one_size(height, width, side, data):
    overlap = data.draw(some.integers(0, side - 1))
    covered = np.zeros((height, width), bool)
    found = boxes(height, width, side=side, overlap=overlap)
    for box in found:
        assert (box.height, box.width) == (min(side, height), min(side, width))
        assert box.top >= 0
        assert box.left >= 0
        covered[box.top : box.top + box.height, box.left : box.left + box.width] = True
    assert covered.all()
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("overlap", [64, 100, -1])
def test_an_overlap_that_cannot_be_is_refused(overlap):
    with pytest.raises(ConfigError, match="overlap"):
        starts(200, 64, overlap)


@pytest.mark.parametrize(("form", "workers"), [("npy", 1), ("png", 1), ("npy", 2)])
def test_pieces_are_the_photo_pixel_for_pixel(photos, tmp_path, form, workers):
    rows = run(photos, tmp_path / "out", form=form, workers=workers)
    assert json.loads((tmp_path / "out" / "index.json").read_text())["photos"] == list(rows.values())
    for source, row in rows.items():
        whole = levels_of(photos / source)
        files = [tmp_path / "out" / "pieces" / name for name in row["pieces"]["files"]]
        if form == "npy":
            found = torch.from_numpy(np.load(files[0])).permute(0, 3, 1, 2)
        else:
            found = torch.stack([levels_of(path) for path in files])
        assert found.shape[2:] == (64, 64)
        for piece, (top, left) in zip(found, row["pieces"]["places"], strict=True):
            assert torch.equal(piece, whole[:, top : top + 64, left : left + 64])
        assert row["pieces"]["bytes"] == sum(path.stat().st_size for path in files)


def test_sixteen_bits_and_gray_are_kept_as_png(tmp_path):
    pixels = torch.rand(1, 64, 64)
    (tmp_path / "in").mkdir()
    write(Picture(pixels=pixels, bits=16), tmp_path / "in" / "a.png")
    rows = run(tmp_path / "in", tmp_path / "out", form="png")
    piece = read(tmp_path / "out" / "pieces" / rows["a.png"]["pieces"]["files"][0])
    assert piece.bits == 16
    assert torch.equal(piece.pixels, read(tmp_path / "in" / "a.png").pixels)


def test_flat_pieces_are_dropped_when_asked(tmp_path):
    pixels = scene(1, 64, 128)
    pixels[:, :, 64:] = 0.5
    save(tmp_path / "in" / "half.png", pixels)
    save(tmp_path / "in" / "flat.png", torch.full((3, 70, 70), 0.3))
    rows = run(tmp_path / "in", tmp_path / "out", overlap=0, sharpness=20.0)
    assert rows["half.png"]["pieces"]["places"] == [[0, 0]]
    assert rows["half.png"]["pieces"]["dropped"] == 1
    assert rows["flat.png"]["reason"].startswith("none of its pieces is sharp")
    assert not list((tmp_path / "out" / "pieces").glob("flat*"))


def test_other_files_and_links_to_folders_are_counted(photos):
    (photos / "notes.txt").write_text("")
    (photos / "README").write_text("")
    (photos / "around").symlink_to(photos)
    found = prepare(photos, None, PreparationConfig(**SMALL), Listening()).others
    assert found == {".txt": 1, "without an ending": 1, "links to folders": 1}


def test_odd_names_and_links(tmp_path):
    folder = tmp_path / "in"
    names = ["a.png", "a.jpg", "x" * 251 + ".png", "[bold]$(x) 'q'.png", "новая\u202e.png", ".hidden.png"]
    for index, name in enumerate(names):
        save(folder / name, scene(index), **({"quality": 95} if name.endswith("jpg") else {}))
    (folder / "a.png").rename(folder / os.fsdecode(b"not\xffutf8.png"))
    save(folder / "sub" / "b.png", scene(40))
    (folder / "link.png").symlink_to("a.jpg")
    (folder / "broken.png").symlink_to("none.png")
    (folder / "around").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    rows = run(folder, tmp_path / "out")
    assert reasons(rows) == {
        "broken.png": "a link that leads nowhere",
        "link.png": "the same file as a.jpg",
        "pipe.png": "this is a device or pipe, a picture file is due; save the data to a file first",
    }
    taken = [row for row in rows.values() if not row["reason"]]
    assert len(taken) == 6
    files = [name for row in taken for name in row["pieces"]["files"]]
    assert len(set(files)) == 6
    assert all((tmp_path / "out" / "pieces" / name).is_file() for name in files)
    assert len(PieceList.find((tmp_path / "out",)).paths) == 6
    for name in ("t.csv", "t.json"):
        write_table(tmp_path / name, list(rows.values()))
        assert (tmp_path / name).stat().st_size > 500


def test_a_folder_that_cannot_be_listed_is_told_and_passed_over():
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        save(folder / "a.png", scene(1))
        (folder / "closed").mkdir(mode=0o700)
        (folder / "a.png").chmod(0o644)
        if os.geteuid() == 0:
            os.seteuid(65534)
            restore = 0
        else:
            (folder / "closed").chmod(0)
            restore = os.geteuid()
        try:
            rows = run(folder)
        finally:
            os.seteuid(restore)
            (folder / "closed").chmod(0o700)
    finally:
        shutil.rmtree(folder)
    assert list(reasons(rows)) == ["closed"]
    assert rows["closed"]["reason"].startswith("the folder cannot be listed: permission is missing")


def test_patches_come_from_pieces_as_from_photos(photos, tmp_path):
    """The pieces written as PNG and read by `Patches` give the same patches as those in .npy."""
    run(photos, tmp_path / "npy")
    run(photos, tmp_path / "png", form="png")
    settings = {"scale": 2, "margin": 1, "channels": 3, "seed": 7}
    pieces = PieceList.find((tmp_path / "npy",))
    ours = PiecePatches(pieces, PatchesConfig(patch=10), **settings)
    theirs = Patches(PhotoList.find((tmp_path / "png" / "pieces",)), PatchesConfig(patch=10), **settings)
    assert len(pieces) == len(theirs.photos.paths)
    for index in range(40):
        assert torch.equal(ours[index], theirs[index])


def test_a_training_takes_its_batches_from_pieces(photos, tmp_path):
    run(photos, tmp_path / "out")
    config = PatchesConfig(patch=8, batch=2)
    settings = {"scale": 2, "channels": 3, "seed": 1}
    loaders = [
        PairLoader(PieceList.find((tmp_path / "out",)), config, BicubicConfig().build(2), **settings)
        for _ in range(2)
    ]
    whole, rest = list(loaders[0].batches(0, 4)), list(loaders[1].batches(2, 4))
    assert whole[0]["input"].shape == (2, 3, 8, 8)
    for one, other in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_of_luma_takes_it_from_pieces_of_colour(photos, tmp_path):
    run(photos, tmp_path / "out")
    pieces, config = PieceList.find((tmp_path / "out",)), PatchesConfig(patch=8, batch=2)
    settings = {"scale": 2, "channels": 1, "seed": 1}
    source = PairLoader(pieces, config, BicubicConfig().build(2), luma=True, **settings)
    (batch,) = source.batches(0, 1)
    assert batch["input"].shape == (2, 1, 8, 8)
    assert 15 / 255 < batch["target"].min() <= batch["target"].max() < 236 / 255
    gray = next(PairLoader(pieces, config, BicubicConfig().build(2), **settings).batches(0, 1))
    # The same gray, full range, from which luma differs by its range alone.
    assert (gray["target"] * 219 + 16 - batch["target"] * 255).abs().max() <= 1.5
    held = PatchesConfig(patch=8, batch=2, held_out=0.1)
    with pytest.raises(DataError, match="no part of prepared pieces can be held out"):
        PairLoader(pieces, held, BicubicConfig().build(2), **settings)


def test_pieces_are_known_again(photos, tmp_path):
    run(photos, tmp_path / "out")
    run(photos, tmp_path / "again")
    digest = PieceList.find((tmp_path / "out",)).digest
    assert PieceList.find((tmp_path / "again",)).digest == digest
    save(photos / "d.png", scene(60))
    run(photos, tmp_path / "again")
    assert PieceList.find((tmp_path / "again",)).digest != digest


def test_folders_that_are_not_prepared_are_left_to_others(photos, tmp_path):
    assert PieceList.find((photos,)) is None
    run(photos, tmp_path / "png", form="png")
    assert PieceList.find((tmp_path / "png",)) is None
    run(photos, tmp_path / "npy")
    with pytest.raises(DataError, match="not prepared as"):
        PieceList.find((tmp_path / "npy", photos))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"images": []}', '{"format": "coco"}', "[" * 100_000])
def test_photos_may_lie_beside_an_index_that_is_not_ours(photos, text):
    (photos / "index.json").write_text(text)
    assert PieceList.find((photos,)) is None


def drop(*keys):
    def change(index):
        for key in keys[:-1]:
            index = index[key]
        del index[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop("format"), 'it holds no "format"'),
        (drop("settings"), 'it lacks "settings"'),
        (drop("settings", "form"), 'it lacks "form"'),
        (drop("photos"), 'it lacks "photos"'),
        (drop("photos", 0, "sha256"), 'it lacks "sha256"'),
        (drop("photos", 0, "pieces", "places"), 'it lacks "places"'),
        (lambda index: index["photos"].append([]), "of another kind"),
        (lambda index: index["photos"][0].update(height=math.inf), "of another kind"),
        (lambda index: index["photos"][0]["pieces"].update(places=[[0]]), "of another kind"),
        (lambda index: index.update(format=2), "another version"),
    ],
)
def test_a_damaged_index_is_told(photos, tmp_path, change, says):
    run(photos, tmp_path / "out")
    path = tmp_path / "out" / "index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match=f"index.json .*{says}"):
        PieceList.find((tmp_path / "out",))
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"index.json is damaged: it holds no JSON; run relume prepare"):
        PieceList.find((tmp_path / "out",))
    path.unlink()
    with pytest.raises(DataError, match="not finished"):
        PieceList.find((tmp_path / "out",))


def test_pieces_that_do_not_fit_are_refused(photos, tmp_path):
    run(photos, tmp_path / "out")
    pieces = PieceList.find((tmp_path / "out",))
    settings = {"scale": 2, "margin": 0, "seed": 1}
    with pytest.raises(DataError, match=r"too small .* 66x66 .* --set data\.patch=32, or prepare"):
        PiecePatches(pieces, PatchesConfig(patch=33), channels=3, **settings)
    with pytest.raises(DataError, match="holds pieces of photos, but the model takes cubes of 31 bands"):
        PiecePatches(pieces, PatchesConfig(patch=8), channels=31, cubes=True, **settings)
    path = pieces.paths[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short"):
        PieceList.find((tmp_path / "out",))
    with pytest.raises(DataError, match="was cut short"):
        pieces.patch(max(n for n, piece in enumerate(pieces.pieces) if piece.path == path), 0, 0, 64)
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        PieceList.find((tmp_path / "out",))
    with pytest.raises(DataError, match="cannot be read"):
        pieces.patch(0, 0, 0, 8)
