"""Preparing photos for training: what is refused and why, how the rest is cut, and going on after a kill."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from torch.nn import functional as F

from relume.core.errors import ConfigError, DataError, RelumeError
from relume.core.pictures import Picture, read, write
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.pairs import PairLoader
from relume.data.patches import Patches, PatchesConfig, PhotoList
from relume.data.preparation import checks
from relume.data.preparation.cutting import boxes, starts
from relume.data.preparation.judging import PreparationConfig, judge
from relume.data.preparation.reading import PieceList, PiecePatches
from relume.data.preparation.records import Photo, check_table, write_table
from relume.data.preparation.running import prepare

SMALL = {"side": 64, "overlap": 16, "least": 40, "blockiness": 0.0}


class Listening:
    def __init__(self, *, stop_after=None):
        self.seen, self.stop_after = [], stop_after

    def begun(self, what, total):
        self.what = what

    def done(self, source):
        self.seen.append((self.what, source))
        if self.stop_after is not None and len(self.seen) == self.stop_after:
            raise KeyboardInterrupt


def scene(seed, height=96, width=120):
    """A picture with large forms and fine grain, unlike that of another seed; `3 H W`, 0..1."""
    generator = torch.Generator().manual_seed(seed)
    forms = F.interpolate(torch.rand(1, 3, 5, 5, generator=generator), (height, width), mode="bicubic")[0]
    return (forms * 0.8 + 0.1 * torch.rand(3, height, width, generator=generator)).clamp(0, 1)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = pixels.mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(path, **options)


def run(folder, output=None, *, listener=None, held_back=(), workers=1, **changes):
    config = PreparationConfig(**{**SMALL, **changes})
    result = prepare(folder, output, config, listener or Listening(), held_back=held_back, workers=workers)
    return {row["source"]: row for row in result.rows}


def reasons(rows):
    return {source: row["reason"] for source, row in rows.items() if row["reason"]}


def levels_of(path):
    return read(path).pixels.mul(255).round().byte()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for index, name in enumerate(("a.png", "b.png", "deep/er/c.png")):
        save(folder / name, scene(index))
    return folder


# Cutting


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


# Figures


@pytest.mark.parametrize("quality", [3, 20, 49, 50, 51, 75, 90, 99])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_quality_of_a_jpeg_is_read_off_its_tables(tmp_path, quality, progressive):
    save(tmp_path / "a.jpg", scene(1), quality=quality, progressive=progressive)
    assert checks.jpeg_quality(tmp_path / "a.jpg") == quality


def test_what_is_no_jpeg_has_no_quality(tmp_path):
    save(tmp_path / "a.png", scene(1))
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xdb\x00\x43\x00")
    assert checks.jpeg_quality(tmp_path / "a.png") is None
    assert checks.jpeg_quality(tmp_path / "b.jpg") is None


def test_blocks_are_seen_after_cropping_and_saving_anew(tmp_path):
    picture = scene(3, 256, 256)
    save(tmp_path / "a.jpg", picture, quality=10)
    blocked = checks.luma(read(tmp_path / "a.jpg").pixels)
    assert checks.blockiness(blocked) > 2
    assert checks.blockiness(blocked[3:, 5:]) > 2
    assert checks.blockiness(checks.luma(picture)) < 1
    assert checks.blockiness(blocked[:9, :9]) == 0


def test_blur_and_flatness_are_told():
    picture = checks.luma(scene(4))
    blurred = F.avg_pool2d(picture[None], 9, 1, 4)[0]
    assert checks.sharpness(torch.full((40, 40), 90.0)) == 0
    assert checks.sharpness(blurred[8:-8, 8:-8]) < 20 < checks.sharpness(picture)


def bits_apart(one, other):
    hashes = [checks.likeness(checks.thumbnail([checks.luma(pixels)])) for pixels in (one, other)]
    return (hashes[0] ^ hashes[1]).bit_count()


def test_like_pictures_have_like_hashes():
    picture = scene(5, 200, 260)
    smaller = F.interpolate(picture[None], scale_factor=0.6, mode="area")[0]
    assert bits_apart(picture, smaller) <= 4
    assert bits_apart(picture, picture * 0.7) <= 4
    assert min(bits_apart(picture, scene(seed, 200, 260)) for seed in range(20, 60)) > 8


def test_a_thumbnail_by_bands_is_that_of_the_whole():
    picture = checks.luma(scene(6, 150, 170))
    whole = F.adaptive_avg_pool2d(picture[None], 32)[0]
    assert torch.allclose(checks.thumbnail(picture.split(37)), whole, atol=1e-3)


# Judging


def test_what_is_refused_says_why(photos):
    save(photos / "small.png", scene(10, 30, 100))
    save(photos / "rough.jpg", scene(11), quality=30)
    save(photos / "blocks.png", levels_of(photos / "rough.jpg").float() / 255)
    (photos / "rough.jpg").unlink()
    save(photos / "rough2.jpg", scene(12), quality=30)
    shutil.copy(photos / "a.png", photos / "twin.png")
    save(photos / "like.jpg", scene(1), quality=90)
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.png").write_text("no picture")
    (photos / "cut.png").write_bytes((photos / "b.png").read_bytes()[:5000])
    clear = torch.cat([scene(13), torch.full((1, 96, 120), 0.5)])
    save(photos / "clear.png", clear)
    (photos / "notes.txt").write_text("")
    found = reasons(run(photos, blockiness=2.0))
    expected = {
        "small.png": "too small: 100x30",
        "blocks.png": "too compressed: blocks",
        "rough2.jpg": "too compressed: JPEG quality 30",
        "twin.png": "the same file as a.png",
        "like.jpg": "is like b.png",
        "empty.png": "the file is empty",
        "text.png": "this is text",
        "cut.png": "the PNG data is damaged or cut short",
        "clear.png": "it has transparent parts",
    }
    assert set(found) == set(expected)
    for source, words in expected.items():
        assert found[source].startswith(words), found[source]
    # The limits are what refuses them.
    assert "rough2.jpg" not in reasons(run(photos, quality=0))
    assert "like.jpg" not in reasons(run(photos, alike=0))
    assert "small.png" not in reasons(run(photos, least=20))


def test_of_like_photos_the_largest_stays(tmp_path):
    picture = scene(1, 200, 260)
    save(tmp_path / "a.png", F.interpolate(picture[None], scale_factor=0.5, mode="area")[0])
    save(tmp_path / "z.png", picture)
    save(tmp_path / "m.jpg", picture, quality=95)
    assert reasons(run(tmp_path)) == {"a.png": "is like z.png", "m.jpg": "is like z.png"}


def test_pictures_of_a_test_set_are_held_back(photos, tmp_path):
    test = tmp_path / "test"
    save(test / "x.jpg", scene(1), quality=60)
    shutil.copy(photos / "a.png", test / "y.png")
    found = reasons(run(photos, held_back=[test]))
    assert found == {
        "a.png": "is in the set held back, as y.png",
        "b.png": "is in the set held back, like x.jpg",
    }


@given(some.lists(some.tuples(some.integers(0, 40), some.integers(1, 3)), max_size=30))
def test_no_two_photos_taken_are_like(drawn):
    photos = [
        Photo(source=f"{index:03d}", bytes=1, changed=1, sha256=str(index), height=500, width=size * 500,
              likeness=f"{(1 << bits) - 1:016x}")
        for index, (bits, size) in enumerate(drawn)
    ]  # fmt: skip
    refused = judge(photos, PreparationConfig(alike=5))
    taken = [bits for photo, (bits, _) in zip(photos, drawn, strict=True) if photo.source not in refused]
    assert all(abs(one - other) > 5 for index, one in enumerate(taken) for other in taken[:index])
    for photo, (bits, size) in zip(photos, drawn, strict=True):
        if photo.source in refused:
            other_bits, other_size = drawn[int(refused[photo.source].removeprefix("is like "))]
            assert abs(bits - other_bits) <= 5
            assert other_size >= size


def test_likeness_is_found_among_many():
    generator = torch.Generator().manual_seed(0)
    hashes = [int.from_bytes(torch.randint(256, (8,), generator=generator).tolist()) for _ in range(2500)]
    hashes[1300], hashes[2400], hashes[2450] = hashes[7], hashes[2300] ^ 0b111, hashes[1200] ^ 0b1111
    photos = [
        Photo(source=f"{index:04d}", bytes=1, changed=1, sha256=str(index), height=500, width=500,
              likeness=f"{value:016x}")
        for index, value in enumerate(hashes)
    ]  # fmt: skip
    assert judge(photos, PreparationConfig(alike=3)) == {"1300": "is like 0007", "2400": "is like 2300"}


# Output


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


# Going on


def test_what_is_done_is_not_done_again(photos, tmp_path):
    run(photos, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pieces").rglob("*.npy")}
    save(photos / "new.png", scene(50))
    save(photos / "b.png", scene(51))
    listener = Listening()
    rows = run(photos, tmp_path / "out", listener=listener)
    assert not reasons(rows)
    assert listener.seen == [
        ("looking at", "b.png"), ("looking at", "new.png"), ("cutting", "b.png"), ("cutting", "new.png"),
    ]  # fmt: skip
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pieces").rglob("*.npy")}
    assert sum(before.get(path) == changed for path, changed in after.items()) == 2
    assert len(after) == 4


def test_pieces_of_photos_no_longer_taken_are_removed(photos, tmp_path):
    run(photos, tmp_path / "out")
    (photos / "a.png").unlink()
    save(photos / "better.png", F.interpolate(scene(1)[None], scale_factor=2, mode="bicubic")[0].clamp(0, 1))
    rows = run(photos, tmp_path / "out")
    assert reasons(rows) == {"b.png": "is like better.png"}
    names = {path.name for path in (tmp_path / "out" / "pieces").rglob("*.npy")}
    assert names == {"better.png.npy", "c.png.npy"}


@pytest.mark.parametrize("stop_after", [1, 3, 4, 5])
def test_an_interrupted_preparation_goes_on(photos, tmp_path, stop_after):
    run(photos, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "out", listener=Listening(stop_after=stop_after))
    with pytest.raises(DataError, match="not finished"):
        PieceList.find((tmp_path / "out",))
    listener = Listening()
    run(photos, tmp_path / "out", listener=listener)
    assert len(listener.seen) == 6 - stop_after
    assert (tmp_path / "out" / "index.json").read_text() == (tmp_path / "whole" / "index.json").read_text()


def test_a_journal_cut_short_and_half_written_files_are_mended(photos, tmp_path):
    output = tmp_path / "out"
    run(photos, output)
    index = (output / "index.json").read_text()
    journal = output / ".preparation.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    (output / "pieces" / ".relume-0123.part").write_bytes(b"half")
    (output / "pieces" / "a.png.npy").unlink()
    for _ in range(2):  # the journal is sound again too
        run(photos, output)
        assert (output / "index.json").read_text() == index
    assert not list(output.rglob("*.part"))


KILLED = """
import sys
from pathlib import Path
from relume.data.preparation.judging import PreparationConfig
from relume.data.preparation.running import prepare

class Listener:
    def begun(self, what, total): print(what, flush=True)
    def done(self, source): print(source, flush=True)

if __name__ == "__main__":
    config = PreparationConfig(side=64, overlap=48, least=40, blockiness=0, form="png")
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), config, Listener(), workers=int(sys.argv[3]))
"""


def test_a_killed_preparation_leaves_nothing_half_done_and_no_process(tmp_path):
    photos, output, script = tmp_path / "photos", tmp_path / "out", tmp_path / "killed.py"
    for index in range(8):
        save(photos / f"{index}.png", scene(index, 160, 200))
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(photos), str(output), "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stdout:
            if line.strip() == "cutting":
                break
        next(process.stdout)  # one photo is cut, others are under way
        process.kill()
        process.wait()
    deadline = time.monotonic() + 30
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)
    for path in (output / "pieces").rglob("*.png"):
        read(path)  # those under their names are whole
    run(photos, output, overlap=48, form="png")
    run(photos, tmp_path / "whole", overlap=48, form="png")
    assert (output / "index.json").read_text() == (tmp_path / "whole" / "index.json").read_text()
    assert not list(output.rglob("*.part"))


def _alive(group):
    """Whether a process of the group still runs; what has ended and waits for its parent does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def test_one_at_a_time(photos, tmp_path):
    pytest.importorskip("fcntl")

    class Second(Listening):
        def done(self, source):
            with pytest.raises(DataError, match="another preparation is at work"):
                run(photos, tmp_path / "out")
            super().done(source)

    listener = Second()
    run(photos, tmp_path / "out", listener=listener)
    assert listener.seen


def test_what_cannot_be_is_refused(photos, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(DataError, match="not a folder"):
        run(tmp_path / "none")
    with pytest.raises(DataError, match="lies in the output"):
        run(photos, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        run(tmp_path / "empty")
    with pytest.raises(DataError, match="no picture to keep apart"):
        run(photos, held_back=[tmp_path / "empty"])
    (tmp_path / "mine" / "pieces").mkdir(parents=True)
    with pytest.raises(DataError, match="from no preparation"):
        run(photos, tmp_path / "mine")
    run(photos, output)
    with pytest.raises(DataError, match=r"cut otherwise \(side 64\)"):
        run(photos, output, side=80)
    with pytest.raises(RelumeError, match="ends in"):
        check_table(tmp_path / "a.txt")
    lines = (output / ".preparation.jsonl").read_text().splitlines()
    (output / ".preparation.jsonl").write_text("\n".join([lines[0], "{}", *lines[1:], ""]))
    with pytest.raises(DataError, match="damaged in line 2"):
        run(photos, output)


def test_an_output_inside_the_folder_is_not_looked_through(photos):
    first = run(photos, photos / "ready", form="png")
    assert run(photos, photos / "ready", form="png") == first


# Reading


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


def test_pieces_that_do_not_fit_are_refused(photos, tmp_path):
    run(photos, tmp_path / "out")
    pieces = PieceList.find((tmp_path / "out",))
    settings = {"scale": 2, "margin": 0, "seed": 1}
    with pytest.raises(DataError, match=r"too small .* 66x66 .* --set data\.patch=32, or prepare"):
        PiecePatches(pieces, PatchesConfig(patch=33), channels=3, **settings)
    with pytest.raises(DataError, match="holds pieces of photos, but the model takes cubes of 31 bands"):
        PiecePatches(pieces, PatchesConfig(patch=8), channels=31, **settings)
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
