"""Preparing photos for training: the figures that judge them, and what is refused and why."""

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from preparing import levels_of, reasons, run, save, scene
from torch.nn import functional as F

from relume.core.pictures import read
from relume.data.preparation import checks
from relume.data.preparation.judging import PreparationConfig, judge
from relume.data.preparation.records import Photo


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


def test_of_like_photos_of_one_size_the_one_in_colour_stays(tmp_path):
    picture = scene(1)
    save(tmp_path / "z.jpg", picture, quality=95)
    save(tmp_path / "a.png", picture)
    Image.open(tmp_path / "a.png").convert("L").save(tmp_path / "a.png")
    assert reasons(run(tmp_path)) == {"a.png": "is like z.jpg"}


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
