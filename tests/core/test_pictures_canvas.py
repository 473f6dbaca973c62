"""Pictures that need not fit in memory are, to the bit, those that do."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures_making import FORMATS, exif_block, full_picture, noise, pillow_bytes, smooth
from PIL import Image

from relume.core.errors import OutputExistsError, PictureError
from relume.core.pictures import (
    Canvas,
    Picture,
    StoredPicture,
    bleed_canvas,
    bleed_colour,
    canvas_bytes,
    check_size,
    depth_for,
    memory_to_write,
    open_stored,
    read,
    transparency,
    write,
)
from relume.core.pictures import (
    canvas as canvas_file,
)
from relume.core.pictures.contents import Contents

OPEN = Path("/proc/self/fd")
anywhere = pytest.mark.parametrize("on_disk", [False, True])
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def quick_strips(monkeypatch):
    """Makes small pictures pass in many strips, as large ones do."""
    monkeypatch.setattr(canvas_file, "ROWS", 3)
    monkeypatch.setattr(canvas_file, "_STRIP", 3)
    monkeypatch.setattr(canvas_file, "_TURNED_AT_ONCE", 64)
    monkeypatch.setattr(transparency, "ROWS", 3)


def filled(values: torch.Tensor, bits: int, folder=None) -> Canvas:
    bands, height, width = values.shape
    canvas = Canvas.empty(height, width, bands, bits, folder=folder)
    canvas.put(0, values)
    return canvas


def open_files() -> int:
    gc.collect()
    return sum(1 for _ in OPEN.iterdir())


@many
@given(
    bits=st.sampled_from([8, 10, 12, 16]),
    bands=st.integers(1, 4),
    height=st.integers(1, 11),
    width=st.integers(1, 9),
    on_disk=st.booleans(),
    data=st.data(),
)
def test_rows_put_in_any_order_come_back_as_levels(
    tmp_path, quick_strips, bits, bands, height, width, on_disk, data
):
    largest = (1 << bits) - 1
    values = torch.rand(bands, height, width, generator=torch.Generator().manual_seed(height)) * 1.2 - 0.1
    step = data.draw(st.integers(1, height))
    tops = data.draw(st.permutations(range(0, height, step)))
    top, bottom = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    left, right = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    with Canvas.empty(height, width, bands, bits, folder=tmp_path if on_disk else None) as canvas:
        for at in tops:
            canvas.put(at, values[:, at : at + step])
        levels = (values.clamp(0, 1) * largest + 0.5).floor()
        expected = torch.from_numpy(levels.numpy() / np.float32(largest))
        assert torch.equal(canvas.rows(0, height), expected)
        assert torch.equal(canvas.window(top, bottom, left, right), expected[:, top:bottom, left:right])
        assert canvas.rows(0, height).dtype == torch.float32
        seen = canvas.image().numpy().reshape(height, width, bands)
        assert np.array_equal(seen, levels.permute(1, 2, 0).numpy() * (1 << (16 - bits if bits > 8 else 0)))
    assert list(tmp_path.iterdir()) == []


@anywhere
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turning_is_numpys(tmp_path, quick_strips, quarters, mirrored, on_disk):
    folder = tmp_path if on_disk else None
    with filled(noise(3, 7, 10, 16), 16, folder) as canvas:
        levels = canvas.levels(0, 7).copy()
        turned = canvas.turned(quarters, mirrored=mirrored)
        expected = np.rot90(levels, quarters)
        expected = expected[:, ::-1] if mirrored else expected
        assert np.array_equal(turned.levels(0, turned.height), expected)
        assert turned.folder == folder
        turned.close()


@anywhere
def test_what_is_no_number_or_does_not_fit_is_refused(tmp_path, on_disk):
    values = torch.zeros(3, 4, 5)
    values[1, 2, 3] = torch.nan
    with Canvas.empty(4, 5, 3, 8, folder=tmp_path if on_disk else None) as canvas:
        with pytest.raises(PictureError, match="NaN"):
            canvas.put(0, values)
        for wrong in (torch.zeros(4, 4, 5), torch.zeros(3, 4, 6), torch.zeros(3, 5, 5)):
            with pytest.raises(ValueError, match=r"fit|rows"):
                canvas.put(0, wrong)
        with pytest.raises(ValueError, match="outside"):
            canvas.rows(0, 5)
        with pytest.raises(ValueError, match="outside"):
            canvas.window(0, 4, 2, 6)
        with pytest.raises(ValueError, match="no alpha"):
            bleed_canvas(canvas)
    for wrong in ((0, 5, 3, 8), (4, 5, 5, 8), (4, 5, 3, 9)):
        with pytest.raises(ValueError, match="no canvas"):
            Canvas.empty(*wrong)


def test_room_is_asked_for_before_any_work(tmp_path):
    with pytest.raises(PictureError) as caught:
        Canvas.empty(1_000_000, 1_000_000, 4, 16, folder=tmp_path)
    assert f"{tmp_path}: the pixels need 8000.0 GB of disk space here and " in str(caught.value)
    with pytest.raises(PictureError, match="cannot be written"):
        Canvas.empty(4, 4, 3, 8, folder=tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_grow_refuses_the_canvas(tmp_path):
    pytest.importorskip("resource")
    code = (
        "import pathlib, resource, sys\n"
        "from relume.core.errors import PictureError\n"
        "from relume.core.pictures import Canvas\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n    Canvas.empty(100, 100, 3, 8, folder=pathlib.Path(sys.argv[1]))\n"
        "except PictureError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "temporary file cannot be written: the file would be larger than the system allows" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.skipif(not OPEN.is_dir(), reason="the system does not show open files")
def test_nothing_stays_on_disk_or_open(tmp_path):
    write(full_picture(alpha=True), tmp_path / "a.png")
    before = open_files()
    with open_stored(tmp_path / "a.png", folder=tmp_path, memory=0) as stored:
        assert stored.canvas.folder == tmp_path
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]  # a killed process leaves nothing
        with pytest.raises(OutputExistsError):
            write(stored, tmp_path / "a.png")
        for suffix in FORMATS.values():
            write(stored, tmp_path / f"b{suffix}")
    open_stored(tmp_path / "a.png", folder=tmp_path, memory=0)  # forgotten, not closed
    assert open_files() == before
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "b"}


def same(one: Picture, other: Picture) -> None:
    assert torch.equal(one.pixels, other.pixels)
    assert (one.alpha is None) == (other.alpha is None)
    assert one.alpha is None or torch.equal(one.alpha, other.alpha)
    for name in ("bits", "icc", "exif", "xmp", "dpi", "format", "notes"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_files_read_and_written_by_way_of_the_disk_are_the_same(tmp_path, kind, alpha, channels, bits):
    picture = full_picture(bits, channels, alpha=alpha)
    path = tmp_path / f"a{FORMATS[kind]}"
    notes = write(picture, path)
    with open_stored(path, folder=tmp_path, memory=0) as stored:
        assert stored.canvas.folder == tmp_path
        assert (stored.channels, stored.size, stored.transparent) == (
            read(path).channels,
            "33x21",
            alpha and kind != "jpeg",
        )
        same(stored.picture(), read(path))
    fields = {name: getattr(picture, name) for name in ("bits", "icc", "exif", "xmp", "dpi")}
    planes = picture.rows(0, 21)
    # At the final depth the canvas itself is encoded; else its rows are made into another.
    for depth in sorted({depth_for(path, bits), 16}):
        with StoredPicture(canvas=filled(planes, depth, tmp_path), **fields) as stored:
            again = tmp_path / f"b{FORMATS[kind]}"
            assert write(stored, again, overwrite=True) == notes
        # Transparency is laid onto white as levels, not as floats.
        if depth == depth_for(path, bits) and not (alpha and kind == "jpeg"):
            assert again.read_bytes() == path.read_bytes()
        else:
            assert (read(again).pixels - read(path).pixels).abs().max() < 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_on_disk_as_in_memory(tmp_path, quick_strips, orientation):
    source = Image.fromarray((smooth(7, 5).permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    path = tmp_path / "a.png"
    path.write_bytes(pillow_bytes(source, "png", exif=exif_block(orientation=orientation), dpi=(300, 150)))
    with open_stored(path, folder=tmp_path, memory=0) as stored:
        assert stored.canvas.folder == tmp_path
        same(stored.picture(), read(path))
        assert stored.size == ("5x7" if orientation < 5 else "7x5")


def test_the_disk_is_used_only_where_memory_is_not_enough(tmp_path):
    write(Picture(pixels=noise(3, 10, 10)), tmp_path / "a.png")
    size = canvas_bytes(10, 10, 3, 8)
    assert size == 300
    for memory, folder, expected in (
        (size, tmp_path, None),
        (size - 1, tmp_path, tmp_path),
        (None, tmp_path, None),
        (0, None, None),
    ):
        with open_stored(tmp_path / "a.png", folder=folder, memory=memory) as stored:
            assert stored.canvas.folder == expected


def test_a_damaged_file_leaves_no_canvas(tmp_path):
    data = pillow_bytes(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "png"
    )
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    before = open_files()
    with pytest.raises(PictureError, match="damaged or cut short"):
        open_stored(tmp_path / "a.png", folder=tmp_path, memory=0)
    assert open_files() == before


@many
@given(
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    bands=st.sampled_from([2, 4]),
    bits=st.sampled_from([8, 16]),
    share=st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]),
    on_disk=st.booleans(),
    seed=st.integers(0, 99),
)
def test_bleeding_by_strips_is_bleeding(
    tmp_path, quick_strips, height, width, bands, bits, share, on_disk, seed
):
    generator = torch.Generator().manual_seed(seed)
    colour = noise(bands - 1, max(height, 2), width, bits, seed)[:, :height]
    alpha = (torch.rand(1, height, width, generator=generator) < share).float()
    with filled(torch.cat([colour, alpha]), bits, tmp_path if on_disk else None) as canvas:
        bleed_canvas(canvas)
        result = canvas.rows(0, height)
    assert torch.equal(result[:-1], bleed_colour(colour, alpha))
    assert torch.equal(result[-1:], alpha)


@many
@given(
    data=st.binary(max_size=60),
    keys=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), max_size=20),
)
def test_contents_are_the_bytes_of_the_file(tmp_path, monkeypatch, data, keys):
    monkeypatch.setattr("relume.core.pictures.contents._BLOCK", 16)
    (tmp_path / "a").write_bytes(data)
    with (tmp_path / "a").open("rb") as file:
        contents = Contents(file.fileno())
        assert len(contents) == len(data)
        for start, end in keys:
            assert contents[start:end] == data[start:end]
            assert b"".join(contents.span(start, end).blocks()) == data[start:end]
            assert len(contents.span(start, end)) == len(data[start:end])
            if start < len(data):
                assert contents[start] == data[start]
            else:
                with pytest.raises(IndexError):
                    contents[start]
        assert contents[:] == data


def test_sizes_and_depths_are_told_before_any_work():
    check_size("a.png", 16_000, 24_000)
    check_size("a.jpg", 65_500, 65_500)
    for name, side in (("a.jpg", 65_501), ("a.webp", 16_384), ("a.avif", 16_385)):
        with pytest.raises(PictureError, match=rf"{name}: 7x{side} is too large .* limit is {side - 1} a"):
            check_size(name, side, 7)
    assert [depth_for(name, 16) for name in ("a.png", "a.jpg", "a.tif", "a.webp", "a.avif")] == [
        16,
        8,
        16,
        8,
        12,
    ]
    assert depth_for("a.avif", 8) == 8
    for ask in (lambda: check_size("a.gif", 1, 1), lambda: depth_for("a", 8)):
        with pytest.raises(PictureError, match=r"\.png"):
            ask()


def test_a_picture_larger_than_the_memory_that_it_takes(tmp_path):
    """144 MB of levels are filled, written thrice and read again with a fraction of that."""
    pytest.importorskip("resource")
    code = """
import pathlib, sys, torch
from relume.core.machine import peak_memory
from relume.core.pictures import Canvas, Picture, StoredPicture, open_stored, write
folder = pathlib.Path(sys.argv[1])
def peak():
    return peak_memory() / (1 << 20)
def steps():
    yield "start"
    canvas = Canvas.empty(6000, 8000, 3, 8, folder=folder)
    ramp = torch.linspace(0, 1, 8000).expand(3, 20, 8000)
    for top in range(0, 6000, 20):
        canvas.put(top, ramp * (top / 6000))
    yield "filled"
    with StoredPicture(canvas=canvas) as stored:
        for suffix in (".jpg", ".tif", ".png"):
            write(stored, folder / f"a{suffix}")
            yield suffix
    for suffix in (".jpg", ".tif", ".png"):
        with open_stored(folder / f"a{suffix}", folder=folder, memory=1000) as stored:
            yield "opened " + suffix
            if suffix == ".png":
                turned = stored.canvas.turned(1, mirrored=False)
                yield "turned"
                assert turned.rows(0, 1).shape == (3, 1, 6000)
write(Picture(pixels=torch.zeros(3, 8, 8)), folder / "warm.png")
start = peak()
for step in steps():
    print(step, round(peak() - start))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    print(done.stdout)
    grown = int(done.stdout.split()[-1])
    assert grown < 120, done.stdout  # MiB
    assert pyvips.Image.new_from_file(str(tmp_path / "a.png")).width == 8000


@pytest.mark.parametrize(("suffix", "bits", "bands"), [(".webp", 8, 4), (".avif", 16, 3)])
def test_the_memory_that_an_encoder_takes_is_foreseen(tmp_path, suffix, bits, bands):
    pytest.importorskip("resource")
    height, width = (1600, 2000) if suffix == ".webp" else (600, 800)
    code = f"""
import pathlib, sys, torch
from relume.core.machine import peak_memory
from relume.core.pictures import Canvas, Picture, StoredPicture, write
folder = pathlib.Path(sys.argv[1])
canvas = Canvas.empty({height}, {width}, {bands}, {bits}, folder=folder)
for top in range(0, {height}, 100):
    canvas.put(top, torch.rand({bands}, 100, {width}))
write(Picture(pixels=torch.zeros(3, 8, 8)), folder / "warm{suffix}")
start = peak_memory()
with StoredPicture(canvas=canvas, bits={bits}, format="jpeg") as stored:
    write(stored, folder / "a{suffix}", quality=50)
print(peak_memory() - start)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300, check=True
    )
    taken = int(done.stdout)
    foreseen = memory_to_write(f"a{suffix}", height, width, bands, bits)
    assert taken < foreseen
    # What strips take was taken in any case; without the rest the figure would be worthless.
    assert taken > (foreseen - memory_to_write("a.png", height, width, bands, bits)) / 3
