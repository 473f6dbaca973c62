"""`relume upscale` on good input: what is kept, what goes where, and what is said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image, ImageCms

from commanding import COMMAND, environment, no_artefacts, picture_file, size_of
from relume.core.pictures import Picture, read, write
from relume.infer.batch.manifest import FILE_NAME

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="an attic"/></rdf:RDF>'
    b'</x:xmpmeta><?xpacket end="w"?>'
)


def exif_block(width: int, height: int) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({0xA002: width, 0xA003: height, 0x829A: 1 / 125})
    return exif.tobytes().removeprefix(b"Exif\0\0")


def levels(path: Path) -> np.ndarray:
    return pyvips.Image.new_from_file(str(path)).numpy()


def test_a_16_bit_rgba_tiff_keeps_everything_that_it_held(tmp_path, relume, tiny):
    generator = torch.Generator().manual_seed(0)
    whole = Picture(
        pixels=torch.rand(3, 11, 17, generator=generator),
        alpha=torch.rand(1, 11, 17, generator=generator),
        bits=16,
        icc=SRGB,
        exif=exif_block(17, 11),
        xmp=XMP,
        dpi=(300.0, 150.0),
    )
    write(whole, tmp_path / "a.tif")
    done = relume("upscale", "a.tif", "-n", tiny, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    image = pyvips.Image.new_from_file(str(tmp_path / "a_x2.tif"))
    assert (image.width, image.height, image.bands, image.format) == (34, 22, 4, "ushort")
    assert image.get("icc-profile-data") == SRGB
    assert b"an attic" in image.get("xmp-data")
    assert (image.xres * 25.4, image.yres * 25.4) == pytest.approx((300, 150))
    assert len(np.unique(image.numpy() & 255)) > 100  # the lower eight bits are alive
    with Image.open(tmp_path / "a_x2.tif") as seen:
        assert seen.getexif()[0x010F] == "Maker"
        assert {seen.getexif().get_ifd(0x8769)[tag] for tag in (0xA002, 0xA003)} == {34, 22}


def test_hidden_colour_is_not_seen_and_gray_stays_gray(tmp_path, relume, tiny):
    """Three pictures in one run: two differ only where alpha is 0, one is gray with alpha."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 16, 16, generator=generator)
    alpha = torch.ones(1, 16, 16)
    alpha[:, :, 8:] = 0
    for name, hidden in (("black", 0.0), ("white", 1.0)):
        write(Picture(pixels=torch.where(alpha > 0, pixels, hidden), alpha=alpha), tmp_path / f"{name}.png")
    write(Picture(pixels=pixels[:1], alpha=alpha), tmp_path / "gray.png")
    done = relume("upscale", tmp_path, "-n", tiny, "-o", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("3 enlarged, 0 failed; ")
    black, white, gray = (levels(tmp_path / "out" / f"{name}.png") for name in ("black", "white", "gray"))
    assert np.array_equal(black, white)
    assert black[..., 3].std() > 10
    assert gray.shape == (32, 32, 2)


def test_a_folder_and_a_file_beside_their_inputs_with_one_line_each(tmp_path, relume, tiny):
    folder = tmp_path / "album"
    folder.mkdir()
    names = ["a b.png", "[x].png", "[red]x[bold].jpg", ":cat:.webp", "фото.tif", "-dash.png", "UP.PNG"]
    for name in names:
        picture_file(folder / name)
    (folder / "notes.txt").write_text("not looked at")
    (folder / "._a b.png").write_bytes(b"what macOS leaves on other systems' disks")
    picture_file(tmp_path / "-single.png")
    command = ("upscale", "-i", "album", "-n", tiny, "--", "-single.png")
    done = relume(*command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    outputs = [folder / f"{Path(name).stem}_x2{Path(name).suffix}" for name in names]
    for path in (*outputs, tmp_path / "-single_x2.png"):
        assert size_of(path) == (24, 18)
        assert f"→ {path.relative_to(tmp_path)}  12x9 → 24x18, cfsr (tiny.safetensors), " in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == len(names) + 2
    assert lines[-1].startswith(f"{len(names) + 1} enlarged, 0 failed; ")
    there = 2 * len(names) + 2  # with what was there beside pictures; the manifest is by the first input
    assert len(list(folder.iterdir())) == there

    # Again: what was made is neither enlarged further nor made anew.
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in outputs}
    again = relume(*command, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"0 enlarged, 0 failed, {len(names) + 1} done before\n"
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in outputs} == before
    assert len(list(folder.iterdir())) == there


def test_names_that_would_command_a_terminal_are_shown_escaped(tmp_path, relume, tiny):
    plain = picture_file(tmp_path / "plain.png")
    names = [b"line\nbreak.png", b"\x1b[31mred.png", b"latin-\xe9.png"]
    try:
        for name in names:
            os.link(plain, os.fsencode(tmp_path) + b"/" + name)
    except OSError:
        pytest.skip("this file system does not take such names")
    plain.unlink()
    done = relume("upscale", ".", "-n", tiny, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4
    assert "\x1b" not in done.stdout
    assert r"line\nbreak_x2.png" in done.stdout
    assert {os.fsencode(path.name) for path in tmp_path.glob("*_x2.png")} == {
        name.replace(b".png", b"_x2.png") for name in names
    }


def test_a_terminal_of_few_letters_is_enough(tmp_path, relume, tiny):
    picture_file(tmp_path / "фото.png")
    done = relume("upscale", "фото.png", "-n", tiny, cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert size_of(tmp_path / "фото_x2.png") == (24, 18)


def test_output_file_format_suffix_and_overwriting(tmp_path, relume, tiny):
    picture_file(tmp_path / "a.png")
    picture_file(tmp_path / "no-ending.png").rename(tmp_path / "no-ending")
    (tmp_path / "there.tif").write_bytes(b"older")
    runs = (
        (["a.png", "-o", "b.jpg", "-s", "2"], ["b.jpg"]),
        (["a.png", "-o", "there.tif", "--overwrite", "--tile", "5"], ["there.tif"]),
        (["a.png", "no-ending", "--format", "tif", "--suffix", "-big"], ["a-big.tif", "no-ending-big.tif"]),
        (["no-ending", "-o", "fresh"], ["fresh/no-ending.png"]),
    )
    for args, made in runs:
        done = relume("upscale", *args, "-n", tiny, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        for name in made:
            assert size_of(tmp_path / name) == (24, 18)
    assert pyvips.Image.new_from_file(str(tmp_path / "b.jpg")).get("vips-loader").startswith("jpeg")
    # Tiles of 5 pixels give what the whole gives.
    assert np.array_equal(levels(tmp_path / "there.tif"), levels(tmp_path / "a-big.tif"))


def test_what_a_format_cannot_hold_and_a_wrong_ending_are_noted(tmp_path, relume, tiny):
    write(Picture(pixels=torch.rand(3, 8, 8), alpha=torch.rand(1, 8, 8)), tmp_path / "a.png")
    (tmp_path / "[really] png.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    done = relume("upscale", "[really] png.jpg", "-n", tiny, cwd=tmp_path)
    assert done.returncode == 0
    notes = done.stderr.splitlines()
    assert len(notes) == 2
    assert all(note.startswith("note: [really] png.jpg: ") for note in notes)
    assert "holds PNG although its name ends in .jpg" in notes[0]
    assert "Transparency was laid onto white" in notes[1]


def test_the_default_model_enlarges_by_four(tmp_path, relume, default_model):
    picture_file(tmp_path / "a.png")
    done = relume("upscale", "a.png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert size_of(tmp_path / "a_x4.png") == (48, 36)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_on_a_terminal_the_bar_shows_names_as_they_are_and_lines_stand_alone(tmp_path, tiny):
    import pty

    for name in ("[red]one[bold].png", "two.png"):
        picture_file(tmp_path / name, 700, 500)
    (tmp_path / "third.png").write_text("text")
    ours, theirs = pty.openpty()
    command = [*COMMAND, "upscale", ".", "-o", "out", "-n", str(tiny)]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**environment(), "COLUMNS": "200"}, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux tells that the other end is closed
                break
            if not piece:
                break
            seen += piece
    os.close(ours)
    assert process.returncode == 1
    text = seen.decode()
    assert re.search(r"\[red\]one\[bold\]\.png \([123] of 3[,)]", text)  # in any order
    assert "━" in text
    # A bar is taken away (to the line's start, line cleared) before a line is printed.
    for line in ("[red]one[bold].png → out/[red]one[bold].png", "two.png → out/two.png"):
        assert f"\r\x1b[2K{line}" in text
    assert "third.png: this is text" in text


@pytest.mark.skipif(sys.platform == "win32", reason="signals work otherwise there")
@pytest.mark.parametrize(("kind", "wait"), [("SIGINT", 0.1), ("SIGKILL", 0.2)])
def test_stopped_in_the_middle_no_output_is_partial(tmp_path, tiny, kind, wait):
    folder = tmp_path / "in"
    folder.mkdir()
    first = picture_file(folder / "0.png", 500, 500)
    for number in range(1, 24):
        (folder / f"{number}.png").write_bytes(first.read_bytes())
    command = [*COMMAND, "upscale", "in", "-o", "out", "-n", str(tiny)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("in/")
        time.sleep(wait)
        process.send_signal(getattr(signal, kind))
        process.wait(timeout=60)
        said = process.stderr.read()
    assert process.returncode != 0
    assert "Traceback" not in said
    made = list((tmp_path / "out").iterdir())
    shown = [path for path in made if not path.name.startswith(".")]
    assert 1 <= len(shown) < 24
    assert all(size_of(path) == (1000, 1000) for path in shown)
    assert kind == "SIGKILL" or [path.name for path in made if path not in shown] == [FILE_NAME]
    assert no_artefacts(said)


def test_the_result_on_disk_is_what_python_gives(tmp_path, relume, tiny):
    from relume import load

    source = picture_file(tmp_path / "a.png", 31, 23)
    assert relume("upscale", "a.png", "-n", tiny, cwd=tmp_path).returncode == 0
    expected = load(tiny)(read(source)).pixels
    assert torch.allclose(read(tmp_path / "a_x2.png").pixels, expected, atol=0.5 / 255 + 1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the memory of a process")
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_memory_promised_is_kept_in_tiles(tmp_path, relume, engine):
    if engine != "torch":
        pytest.importorskip(engine)
    picture_file(tmp_path / "a.png", 500, 400)
    done = relume(
        "upscale", "a.png", "--engine", engine, "--memory", "1100MiB", "--threads", "1",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    amount, unit = re.search(r"peak ([\d.]+) (MiB|GiB)", done.stdout).groups()
    assert 300 < float(amount) * (1024 if unit == "GiB" else 1) <= 1100
    assert size_of(tmp_path / "a_x4.png") == (2000, 1600)
