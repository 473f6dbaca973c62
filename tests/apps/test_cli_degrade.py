"""`relume degrade`: the pictures that it makes, its sheet, and what it refuses.

The command itself is run where its words count; else its function, which spares a process.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from commanding import content, picture_file, size_of
from relume.apps.commands.degrade import degrade
from relume.core.choices import ChosenFrom
from relume.core.errors import RelumeError
from relume.core.pictures import Picture, read, write
from relume.data.degradations.haze import HazeConfig


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return picture_file(tmp_path / "a.png", width=64, height=48)


def test_the_picture_is_what_the_degradation_makes(tmp_path, relume, photo):
    done = relume("degrade", "a.png", "-r", "haze", "--seed", 7, "--set", "density=1.5", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "written: a_haze.png\nwritten: a_haze_sheet.png\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a_haze.png", "a_haze_sheet.png"]
    haze = HazeConfig(density=1.5).build(1)
    expected = haze(read(photo).pixels.unsqueeze(0), generator=torch.Generator().manual_seed(7))[0]
    assert (read(tmp_path / "a_haze.png").pixels - expected).abs().max() <= 0.51 / 255


def test_distances_come_from_a_file(tmp_path, relume, photo):
    metres = torch.rand(48, 64, generator=torch.Generator().manual_seed(1)) + 1
    np.save(tmp_path / "depth.npy", metres.numpy())
    settings = ("--set", "density=1.5", "--set", "depth_maps=depth.npy", "--set", "farthest=2")
    done = relume("degrade", "a.png", "-r", "haze", "--no-sheet", *settings, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    haze = HazeConfig(density=1.5).build(1)
    expected = haze(
        read(photo).pixels.unsqueeze(0),
        generator=torch.Generator().manual_seed(0),
        distance=metres[None, None] / 2,
    )[0]
    assert (read(tmp_path / "a_haze.png").pixels - expected).abs().max() <= 0.51 / 255
    picture_file(tmp_path / "b.png", width=60, height=48)
    with pytest.raises(RelumeError, match=r"depth\.npy is 64x48, but its photo b\.png is 60x48"):
        degrade([Path("b.png")], recipe="haze", settings=["depth_maps=depth.npy"], output=Path("c.png"))
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps/a.npy", metres.numpy())
    with pytest.raises(RelumeError, match=r"maps holds no depth map of b\.png"):
        degrade([Path("b.png")], recipe="haze", settings=["depth_maps=maps"], output=Path("c.png"))
    assert not (tmp_path / "c.png").exists()


def test_one_draw_has_its_sheet_too_unless_told_otherwise(tmp_path, photo):
    degrade([photo], recipe="haze", seed=7)
    shown = read(tmp_path / "a_haze_sheet.png").pixels
    # Photo and damaged form side by side, the margin 8 wide, below labels of one height.
    assert shown.shape[2] == 2 * (64 + 8) + 8
    top = shown.shape[1] - 8 - 48
    assert torch.equal(shown[:, top : top + 48, 8:72], read(photo).pixels)
    assert torch.equal(shown[:, top : top + 48, 80:144], read(tmp_path / "a_haze.png").pixels)
    before = content(tmp_path)
    degrade([photo], recipe="rain", no_sheet=True)
    degrade([photo], recipe="rain", output=Path("b.png"))
    assert content(tmp_path).keys() - before.keys() == {"a_rain.png", "b.png"}
    with pytest.raises(RelumeError, match="leave one out"):
        degrade([photo], recipe="snow", sheet=Path("s.png"), no_sheet=True)


def test_several_draws_and_their_sheet(tmp_path, relume, photo):
    done = relume("degrade", "a.png", "-r", "rain", "--seed", 3, "-d", 4, "-o", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    names = [*(f"a_rain_seed{seed}.png" for seed in (3, 4, 5, 6)), "a_rain_sheet.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert all(str(Path("out") / name) in done.stdout for name in names)
    # Four in a row: the photo and three draws, then the last one.
    with Image.open(tmp_path / "out" / "a_rain_sheet.png") as sheet:
        assert sheet.width == 4 * (64 + 8) + 8
        assert sheet.height > 2 * 48
    # Any draw can be had again by its seed alone.
    degrade([photo], recipe="rain", seed=5, output=Path("b.png"))
    assert torch.equal(read(tmp_path / "b.png").pixels, read(tmp_path / "out/a_rain_seed5.png").pixels)
    assert not torch.equal(read(tmp_path / "b.png").pixels, read(tmp_path / "out/a_rain_seed6.png").pixels)


def test_several_photos_on_one_sheet_of_another_format_and_size(tmp_path, photo):
    other = picture_file(tmp_path / "b.jpg", width=40, height=80, seed=1)
    degrade([photo, other], recipe="snow", draws=2, sheet=Path("s.webp"), sheet_side=32)
    made = ["a_snow_seed0.png", "a_snow_seed1.png", "b_snow_seed2.png", "b_snow_seed3.png"]
    assert {*made, "s.webp"} < {path.name for path in tmp_path.iterdir()}
    assert size_of(tmp_path / "s.webp")[0] == 3 * (32 + 8) + 8
    assert size_of(tmp_path / made[2]) == (40, 80)


def test_a_smaller_picture_by_its_scale(tmp_path):
    photo = picture_file(tmp_path / "a.png", width=42, height=33)
    for scale, size in ((None, (10, 8)), (2, (21, 16))):
        degrade([photo], recipe="bicubic", output=Path("b.png"), overwrite=True, scale=scale)
        assert size_of(tmp_path / "b.png") == size


@pytest.mark.parametrize("name", ChosenFrom("relume.data.degradations", "degradation").names())
def test_every_degradation_is_to_be_had(tmp_path, name):
    photo = picture_file(tmp_path / "a.png", width=160, height=160)
    degrade([photo], recipe=name, output=Path("b.png"))
    side = size_of(tmp_path / "b.png")
    assert side in ((160, 160), (40, 40))
    assert not torch.equal(read(tmp_path / "b.png").pixels, read(photo).pixels)


def test_depth_and_transparency_stay(tmp_path, relume):
    alpha = torch.rand(1, 24, 20)
    write(Picture(pixels=torch.rand(1, 24, 20), alpha=alpha, bits=16), tmp_path / "a.png")
    degrade([Path("a.png")], recipe="shadow")
    made = read(tmp_path / "a_shadow.png")
    assert (made.bits, made.channels) == (16, 1)
    assert made.alpha is not None
    assert (made.alpha - alpha).abs().max() < 1e-4
    done = relume("degrade", "a.png", "-r", "bicubic", "-s", 2, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "note: a.png: transparency is left out, as the size changes\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"recipe": "hase"}, ("unknown degradation 'hase'", "'haze'")),
        ({"settings": ["strenght=2"]}, ("'strenght'", "'strength'")),
        ({"settings": ["density=[3,1]"]}, ("density", "smaller to its larger")),
        ({"scale": 2}, ("haze keeps the size", "not 2")),
        ({"recipe": "motion-blur", "settings": ["length=60"]}, ("a.png is 64x48", "motion-blur", "63x63")),
        ({"draws": 2, "output": Path("b.png")}, ("b.png names a file", "folder")),
        ({"output": Path("there.png")}, ("there.png", "exists")),
        ({"output": Path("a.png"), "overwrite": True}, ("a.png", "over a photo")),
        ({"output": Path("x.gif")}, ("x.gif", "'.gif' is no picture format that can be written", ".png")),
        ({"output": Path("x.HEIC"), "draws": 2}, ("x.HEIC", ".png, .jpg")),
        ({"output": Path("none/c.png")}, ("none", "does not exist")),
        ({"draws": 2, "output": Path("no/where")}, ("no", "does not exist")),
        ({"sheet": Path("s.txt")}, ("s.txt",)),
        ({"sheet": Path("a_haze.png")}, ("a_haze.png", "twice")),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(tmp_path, photo, options, says):
    (tmp_path / "there.png").write_bytes(b"kept")
    before = content(tmp_path)
    with pytest.raises(RelumeError) as caught:
        degrade([photo], **{"recipe": "haze", **options})
    assert all(words in str(caught.value) for words in says), caught.value
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["x.gif", "v1.2"])
def test_a_folder_may_have_any_ending(tmp_path, photo, name):
    if name == "x.gif":  # there already, so nothing is guessed
        (tmp_path / name).mkdir()
    degrade([photo], recipe="noise", output=Path(name))
    assert (tmp_path / name / "a_noise.png").exists()


def test_a_refusal_is_one_line_of_the_command(photo, refused):
    refused("degrade", "a.png", "-r", "hase", says=("unknown degradation 'hase'; did you mean 'haze'?",))


def test_gray_is_refused_where_colour_is_needed(tmp_path):
    photo = picture_file(tmp_path / "a.png", channels=1)
    with pytest.raises(RelumeError, match="gray"):
        degrade([photo], recipe="underwater")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_two_photos_of_one_name_do_not_meet_in_a_folder(tmp_path):
    photos = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        photos.append(picture_file(tmp_path / folder / "a.png"))
    with pytest.raises(RelumeError, match=r"a_haze\.png would be written twice"):
        degrade(photos, recipe="haze", output=Path("out"))
    assert not (tmp_path / "out").exists()


def test_a_photo_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(RelumeError, match=r"a\.png"):
        degrade([Path("a.png")], recipe="haze")


def test_a_batch_goes_on_past_what_cannot_be_damaged(tmp_path, relume, photo):
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:200])
    picture_file(tmp_path / "tiny.png", width=4, height=4)
    last = picture_file(tmp_path / "z.png", width=64, height=64, seed=3)
    given = ("a.png", "broken.png", "tiny.png", last.name)
    done = relume("degrade", *given, "-r", "bsrgan", "-d", 2, "-s", 2, "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    first, second, third = done.stderr.splitlines()
    assert first.startswith("error: broken.png: the PNG data is damaged")
    assert second.startswith("error: tiny.png is 4x4, too small for bsrgan")
    assert third == "error: 2 of 4 photos could not be damaged"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    made = {f"a_bsrgan_seed{seed}.png" for seed in (0, 1)} | {f"z_bsrgan_seed{seed}.png" for seed in (6, 7)}
    assert names == {*made, "bsrgan_sheet.png"}
    assert done.stdout.count("written: ") == 5
    assert "broken" not in done.stdout


def test_where_nothing_can_be_damaged_there_is_no_sheet(tmp_path, relume):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"nothing")
    done = relume("degrade", "a.png", "b.png", "-r", "noise", "-o", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "2 of 2 photos" in done.stderr
    assert not (tmp_path / "out").exists()
