"""Small files that claim, or unpack to, what no machine holds: refused, or read without what is too large."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import seeds
import torch
from children import complaint
from mutations import mend_riff, split_avif, split_jpeg, split_png, split_riff
from safetensors.torch import save

from relume.core.pictures import ifd, read, write

MEMORY = 128 << 20
SECONDS = 6


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def riff(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content


def zeros(count: int) -> bytes:
    """Many zeros, deflated."""
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(count >> 20)), packer.flush()])


def overlapping_exif(tags: int, size: int) -> bytes:
    """EXIF of which each tag claims the same bytes, the whole block."""
    entries = b"".join(struct.pack("<HHII", tag + 1, 7, size, 0) for tag in range(tags))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries).ljust(size, b"\0")


def png(*extra: bytes) -> bytes:
    """A PNG file with chunks added behind its header."""
    first, header, *rest = split_png(seeds.pictures("png")[4])
    return b"".join([first, header, *extra, *rest])


def jpeg(*extra: bytes) -> bytes:
    start, *rest = split_jpeg(seeds.pictures("jpeg")[3])
    return b"".join([start, *extra, *rest])


def webp(kind: bytes, content: bytes) -> bytes:
    """A WebP file with one chunk replaced."""
    head, *chunks = split_riff(seeds.pictures("webp")[0])
    return b"".join(mend_riff([head, *(riff(kind, content) if one[:4] == kind else one for one in chunks)]))


def tiff(entries: dict[int, ifd.Entry], more: bytes = b"") -> bytes:
    """A TIFF file with entries added or replaced, and bytes that they may point to."""
    data = seeds.pictures("tiff")[0]
    layout = ifd.layout_of(data)
    found = ifd.read_directory(data, ifd.first_position(data, layout), layout).entries
    data += b"\0" * (len(data) % 2) + more
    return (
        data[:4]
        + layout.pack(len(data), 4)
        + data[8:]
        + ifd.build_directory(found | entries, len(data), layout)
    )


def tiff_of_overlapping_tags() -> bytes:
    """Each of 2,000 tags claims the same ten million bytes."""
    data = bytearray(
        tiff({40_000 + tag: ifd.undefined(b"12345678") for tag in range(2000)}, bytes(10_000_000))
    )
    layout = ifd.layout_of(bytes(data))
    at = ifd.first_position(bytes(data), layout) + 2
    for _ in range(2000):
        while int.from_bytes(data[at : at + 2], "little") < 40_000:
            at += 12
        data[at + 4 : at + 12] = struct.pack("<II", 10_000_000, 8)
        at += 12
    return bytes(data)


def tiff_of_pages(count: int, *, circle: bool = False) -> bytes:
    """One directory, repeated; the last leads nowhere or to the first."""
    data = seeds.pictures("tiff")[0]
    start = ifd.first_position(data, ifd.layout_of(data))
    table = data[start : start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")]
    data += b"\0" * (len(data) % 2)
    first, step = len(data), len(table) + 4
    last = first if circle else 0
    following = [*(first + step * (page + 1) for page in range(count - 1)), last]
    pages = b"".join(table + struct.pack("<I", position) for position in following)
    return data[:4] + struct.pack("<I", first) + data[8:] + pages


def avif(where: bytes, extra: bytes) -> bytes:
    """An AVIF file with boxes added at its end or within one of its boxes."""
    data = seeds.pictures("avif")[0]
    if not where:
        return data + extra
    head, *boxes = split_avif(data)
    assert head[4:8] == b"ftyp"
    pieces = [head]
    for box in boxes:
        if box[4:8] == where:
            # Only `meta` is open here; its length grows by what goes into it.
            pieces += [(int.from_bytes(box[:4], "big") + len(extra)).to_bytes(4, "big"), box[4:], extra]
        else:
            pieces.append(box)
    return b"".join(pieces)


BOX = struct.pack(">I4s", 8, b"free")
PICTURES: dict[str, tuple[Callable[[], bytes], bool | None]] = {
    # what: (file, whether it is to be read)
    "profile.png": (lambda: png(chunk(b"iCCP", b"x\0\0" + zeros(1 << 30))), True),
    "text.png": (lambda: png(*[chunk(b"zTXt", b"x\0\0" + zeros(1 << 28))] * 4), True),
    "xmp.png": (lambda: png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(1 << 30))), True),
    "comment.png": (lambda: png(chunk(b"tEXt", b"x\0" + b"a" * 100_000_000)), True),
    "exif.png": (lambda: png(chunk(b"eXIf", overlapping_exif(65_000, 800_000))), True),
    "chunks.png": (lambda: png(chunk(b"abCd", b"") * 500_000), True),
    "pixels.png": (lambda: png(chunk(b"IDAT", b"") * 500_000), False),
    "exif.jpg": (lambda: jpeg(segment(0xE1, b"Exif\0\0" + overlapping_exif(5000, 65_000))), True),
    "segments.jpg": (lambda: jpeg(segment(0xFE, b"") * 500_000), True),
    "long-segments.jpg": (lambda: jpeg(segment(0xED, bytes(65_000)) * 1500), False),
    "filling.jpg": (lambda: jpeg(b"\xff" * 5_000_000), True),
    "tags.tif": (tiff_of_overlapping_tags, False),
    "pages.tif": (lambda: tiff_of_pages(20_000), False),
    "circle.tif": (lambda: tiff_of_pages(3, circle=True), None),
    "profile.tif": (lambda: tiff({34675: ifd.undefined(bytes(100_000_000))}), False),
    "strips.tif": (lambda: tiff({257: ifd.long(60_000_000, ifd.Layout("<"))}), False),
    "tile.tif": (
        lambda: tiff({322: ifd.long(1 << 20, ifd.Layout("<")), 323: ifd.long(1 << 20, ifd.Layout("<"))}),
        None,
    ),
    "profile.webp": (lambda: webp(b"ICCP", bytes(100_000_000)), True),
    "exif.webp": (lambda: webp(b"EXIF", overlapping_exif(65_000, 800_000)), True),
    "boxes.avif": (lambda: avif(b"", BOX * 500_000), False),
    "meta.avif": (lambda: avif(b"meta", BOX * 500_000), False),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_bomb_in_a_picture_takes_neither_memory_nor_time(tmp_path, children, name):
    make, readable = PICTURES[name]
    path = tmp_path / name
    path.write_bytes(make())
    outcome = children.run("picture", path)
    # libvips takes files of WebP into memory whole.
    allowed = MEMORY + (2 * path.stat().st_size if name.endswith(".webp") else 0)
    assert complaint(outcome, memory=allowed, quiet=True) is None, outcome
    assert outcome.seconds < SECONDS
    if readable is not None:
        assert (outcome.status == 0) == readable, outcome.err
    path.unlink()


def test_metadata_beyond_any_sound_size_is_left_out_and_said(tmp_path):
    profile = bytearray(40_000_000)
    profile[:128] = seeds.gray_profile()[:16] + b"RGB " + seeds.gray_profile()[20:128]
    (tmp_path / "a.webp").write_bytes(webp(b"ICCP", bytes(profile)))
    picture = read(tmp_path / "a.webp")
    assert picture.icc is None
    assert any("40000000 bytes, at most 33554432 are taken over" in note for note in picture.notes)
    (tmp_path / "a.webp").write_bytes(webp(b"EXIF", seeds.exif(1) + bytes(40_000_000)))
    picture = read(tmp_path / "a.webp")
    assert picture.exif is None
    assert any(note.startswith("EXIF was left out: it has 400") for note in picture.notes)


def test_a_damaged_gray_profile_does_not_stop_the_writing(tmp_path):
    picture = read_first(tmp_path, gray=True)
    broken = picture.icc[:20] + b"YYZ " + picture.icc[24:]
    notes = write(picture.replace(icc=broken), tmp_path / "b.webp")
    assert "The gray profile was left out: it is damaged and cannot be applied." in notes
    assert read(tmp_path / "b.webp").size == picture.size


def read_first(folder, *, gray: bool) -> Any:
    (folder / "a.png").write_bytes(seeds.pictures("png")[3 if gray else 0])
    return read(folder / "a.png")


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if "data/0" in members else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in {"data.pkl": b"\x80\x02}.", "version": b"3\n", **members}.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def endless(zipfile_: bool) -> bytes:
    wrapper: dict[str, Any] = {}
    wrapper["params"] = wrapper
    return seeds.torch_file(wrapper, zipfile_)


def ours(**config: Any) -> Callable[[], bytes]:
    return partial(seeds.checkpoint, config)


def pth(content: Any) -> Callable[[], bytes]:
    return partial(seeds.torch_file, content, True)


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "packed.pth": (lambda: zipped(**{"data/0": bytes(1 << 28)}), "would unpack to"),
    "word.pth": (lambda: b"\x80\x02c" + b"a" * 200_000 + b"\nb\n.", "a word of more than 20000 characters"),
    "word-zip.pth": (
        lambda: zipped(**{"data.pkl": b"\x80\x02c" + b"a" * 200_000 + b"\nb\n."}),
        "a word of more than 20000 characters",
    ),
    "endless.pth": (partial(endless, True), "holds no weights"),
    "endless-old.pth": (partial(endless, False), "holds no weights"),
    "repeated.pth": (
        lambda: seeds.torch_file({"a": torch.ones(1).expand(10**6, 10**6)}, True),
        "no plain tensor",
    ),
    "sparse.pth": (pth({"a": torch.eye(3).to_sparse()}), "no plain tensor"),
    "empty-device.pth": (
        lambda: seeds.torch_file({"a": torch.ones(3, device="meta")}, True),
        "no plain tensor",
    ),
    "terminal.pth": (
        lambda: seeds.torch_file({"\x1b[31m\u202e": torch.ones(1)}, True),
        "begin with \\x1b[31m\\u202e",
    ),
    "numbers.pth": (pth({7: torch.ones(1)}), "holds no weights"),
    "header.safetensors": (
        lambda: safetensors(b"{" + b" " * 90_000_000 + b"}"),
        "its header claims 90000002 bytes",
    ),
    "deep.safetensors": (
        lambda: save({"a": torch.ones(1)}, metadata={"relume": "[" * 10**5 + "]" * 10**5}),
        "damaged relume header",
    ),
    "width.safetensors": (
        ours(width=50_000),
        "settings claim 50000, which",
    ),
    "depth.safetensors": (ours(depths=[1000] * 9), "settings claim 9000, which"),
    "kernel.safetensors": (ours(kernel_size=1001), "settings claim a network of"),
    "number.safetensors": (ours(width=10**4000), "settings claim 1000000"),
    "a.onnx": (lambda: seeds.weights("onnx")[0], "is an ONNX file, which cannot be loaded"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_bomb_in_weights_takes_neither_memory_nor_time(tmp_path, children, name):
    make, said = WEIGHTS[name]
    path = tmp_path / name
    path.write_bytes(make())
    picture = tmp_path / "in.png"
    picture.write_bytes(seeds.pictures("png")[0])
    commands = [("upscale", picture, "-n", path, "-o", tmp_path / "out.png")]
    if not (name.endswith(".safetensors") and "claim" in said and "settings" in said):
        commands.append(("convert", path, "-o", tmp_path / "out.safetensors"))  # of what is not ours yet
    for command in commands:
        outcome = children.run("relume", *command)
        assert complaint(outcome, memory=MEMORY, quiet=True) is None, outcome
        assert (outcome.status, outcome.seconds < SECONDS) == (1, True)
        assert said in outcome.err
    assert {entry.name for entry in tmp_path.iterdir()} == {name, "in.png"}
