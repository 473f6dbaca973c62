"""Sound files, small and of every kind, from which broken ones are made."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyvips
import torch
from PIL import Image, ImageCms
from safetensors.torch import save

from relume.core.checkpoints import fingerprint
from relume.core.pictures import Picture, write
from relume.models import zoo

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif", "webp": ".webp", "avif": ".avif"}
HEIGHT, WIDTH = 18, 22


@cache
def pictures(kind: str) -> tuple[bytes, ...]:
    """Files of a format: gray and colour, alpha, 8 and 16 bits, and what else the format knows."""
    files = [_ours(kind, picture) for picture in _all_pictures(kind)]
    files += {"png": _png, "jpeg": _jpeg, "tiff": _tiff, "webp": _webp, "avif": _avif}[kind]()
    return tuple(files)


def _ours(kind: str, picture: Picture) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a{SUFFIXES[kind]}"
        write(picture, path)
        return path.read_bytes()


def _all_pictures(kind: str) -> list[Picture]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for bits, channels, alpha in ((8, 3, False), (16, 3, True), (8, 1, True), (16, 1, False)):
        if bits == 16 and kind in ("jpeg", "webp"):
            continue
        planes = torch.rand(channels + 1, HEIGHT, WIDTH, generator=generator)
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        found.append(
            Picture(
                pixels=planes[:channels],
                alpha=planes[channels:] if alpha and kind != "jpeg" else None,
                bits=bits,
                icc=profile if channels == 3 else gray_profile(),
                exif=exif(orientation=bits // 2 - 2),
                xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6" tiff:ImageWidth="5"/>',
                dpi=(300.0, 150.0),
            )
        )
    return found


def exif(orientation: int) -> bytes:
    """A block with its sub-directories, as Pillow writes it."""
    block = Image.Exif()
    block[0x010F] = "Maker"
    block[0x0112] = orientation
    detail = block.get_ifd(0x8769)
    detail[0xA002], detail[0xA003], detail[0x927C] = WIDTH, HEIGHT, b"a note of the maker"
    block.get_ifd(0x8825)[2] = (52.0, 31.0, 12.5)
    return block.tobytes().removeprefix(b"Exif\0\0")


def gray_profile() -> bytes:
    """A gray profile of one curve (gamma 1.8) and a white point."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.8 * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    at = 128 + 4 + 2 * 12
    table = struct.pack(">I4sII4sII", 2, b"kTRC", at, len(curve), b"wtpt", at + len(curve), len(white))
    body = table + curve + white
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    illuminant = struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(36, b"\0") + b"acsp" + bytes(28) + illuminant + bytes(48) + body


def _levels(bands: int, dtype: type = np.uint8) -> np.ndarray[Any, Any]:
    largest = np.iinfo(dtype).max
    rng = np.random.default_rng(bands)
    return rng.integers(0, largest, (HEIGHT, WIDTH, bands), dtype=dtype, endpoint=True)


def _vips(bands: int, space: str, dtype: type = np.uint8) -> pyvips.Image:
    return pyvips.Image.new_from_array(_levels(bands, dtype)).copy(interpretation=space)


def _pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind.upper(), **options)
    return file.getvalue()


def _frames() -> list[Image.Image]:
    return [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue", "lime")]


def _animated(kind: str) -> bytes:
    first, *rest = _frames()
    return _pillow(first, kind, save_all=True, append_images=rest, duration=100)


def _png() -> list[bytes]:
    palette = Image.fromarray(_levels(3)).convert("P", colors=7)
    return [
        bytes(_vips(3, "srgb").pngsave_buffer(interlace=True)),
        _pillow(palette, "png", transparency=bytes([0, 100])),
        _pillow(palette.convert("1"), "png"),
        _pillow(Image.fromarray(_levels(3)), "png", transparency=(1, 2, 3)),
        _animated("png"),
    ]


def _jpeg() -> list[bytes]:
    plain = _vips(3, "srgb")
    own = _vips(3, "srgb").icc_transform("cmyk", input_profile="srgb")
    return [
        bytes(own.jpegsave_buffer()),
        bytes(plain.jpegsave_buffer(interlace=True, optimize_coding=True)),
        bytes(plain.jpegsave_buffer(restart_interval=2, subsample_mode="on")),
        bytes(_vips(4, "cmyk").jpegsave_buffer()),
        _pillow(Image.fromarray(_levels(1)[..., 0]), "jpeg", quality=30),
    ]


def _tiff() -> list[bytes]:
    plain = _vips(3, "srgb")
    first, *rest = _frames()
    variants = [
        {"tile": True, "tile_width": 16, "tile_height": 16},
        {"compression": "lzw", "predictor": "horizontal"},
        {"compression": "jpeg", "tile": True, "tile_width": 16, "tile_height": 16},
        {"compression": "packbits"},
        {"bigtiff": True},
        {"pyramid": True, "tile": True, "tile_width": 16, "tile_height": 16},
    ]
    return [
        *(bytes(plain.tiffsave_buffer(**options)) for options in variants),
        bytes(_vips(4, "cmyk").tiffsave_buffer()),
        bytes(_vips(4, "cmyk", np.uint16).tiffsave_buffer()),
        bytes(_vips(3, "srgb").colourspace("lab").tiffsave_buffer()),
        _pillow(Image.fromarray(_levels(3)).convert("LAB"), "tiff"),
        _pillow(Image.fromarray(_levels(1)[..., 0]).convert("1"), "tiff", compression="group4"),
        _pillow(Image.fromarray(_levels(3)).convert("P", colors=7), "tiff"),
        _pillow(first, "tiff", save_all=True, append_images=rest),
        bytes(_vips(3, "srgb").cast("float").tiffsave_buffer()),
    ]


def _webp() -> list[bytes]:
    image = Image.fromarray(_levels(4))
    return [_pillow(image, "webp", quality=60), _pillow(image, "webp", lossless=True), _animated("webp")]


def _avif() -> list[bytes]:
    image = Image.fromarray(_levels(3))
    return [_pillow(image, "avif", subsampling="4:2:0"), _pillow(image, "avif", irot=1), _animated("avif")]


@cache
def weights(kind: str) -> tuple[bytes, ...]:
    """Files of weights: "safetensors", "pth" (zip), "legacy" (pickle) or "onnx"."""
    state = dict(zoo.load("cfsr-x2")[0].state_dict())
    small = {f"layers.{index}.weight": torch.randn(4, 3) for index in range(3)}
    if kind == "safetensors":
        return checkpoint(), save(small), save(state)
    if kind == "onnx":
        return (_onnx(),)
    zipped = kind == "pth"
    wrapped = {"params_ema": small, "epoch": 3, "config": {"width": 4, "name": "x"}}
    contents = (small, wrapped, state) if zipped else (small, wrapped)
    return tuple(torch_file(content, zipped) for content in contents)


def checkpoint(settings: Mapping[str, Any] | None = None, /, **parts: Any) -> bytes:
    """One of ours, with settings and parts of its header changed; its fingerprint stays right."""
    network, header = zoo.load("cfsr-x2")
    state = dict(network.state_dict())
    known = {**asdict(header), "config": {**header.config, **(settings or {})}, "sha256": fingerprint(state)}
    return save(state, metadata={"relume": json.dumps({"format": 1, **known, **parts})})


def torch_file(content: Any, zipped: bool) -> bytes:
    """What `torch.save` writes: a zip archive, or the older bare pickles."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _onnx() -> bytes:
    """A network of one convolution, in the wire format of protocol buffers."""

    def field(number: int, content: bytes | int) -> bytes:
        if isinstance(content, int):
            return bytes([number << 3, content])
        return bytes([number << 3 | 2, len(content)]) + content

    node = field(1, b"x") + field(1, b"w") + field(2, b"y") + field(4, b"Conv")
    tensor = field(1, 1) + field(2, 1) + field(8, b"w") + field(9, struct.pack("<f", 0.5))
    graph = field(1, node) + field(2, b"graph") + field(5, tensor)
    return field(1, 8) + field(2, b"pytorch") + field(7, graph) + field(8, field(2, 17))
