"""Small pictures and metadata for the tests of `core/pictures`, made by other libraries."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch
from PIL import Image, ImageCms

from relume.core.pictures import Picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:ImageWidth="5"/>'
    b'</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
FORMATS = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif", "webp": ".webp", "avif": ".avif"}
MAKER_NOTE = b"NOTE of the maker, longer than a slot"


def noise(channels: int, height: int, width: int, bits: int = 8, seed: int = 0) -> torch.Tensor:
    """C×H×W of every level that the depth has, as the reader would give them."""
    largest = (1 << bits) - 1
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, largest + 1, (channels, height, width), generator=generator)
    levels.view(-1)[:2] = torch.tensor([0, largest])
    return levels.to(torch.float32) / largest


def smooth(height: int, width: int) -> torch.Tensor:
    """A 3×H×W ramp that lossy formats keep closely."""
    down = torch.linspace(0.1, 0.9, height)[:, None].expand(height, width)
    across = torch.linspace(0.2, 0.8, width)[None].expand(height, width)
    return torch.stack([down, across, (down + across) / 2]).contiguous()


def exif_block(width: int = 5, height: int = 7, orientation: int = 1) -> bytes:
    """EXIF as Pillow writes it: main, Exif and GPS tags, a maker note."""
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    exif[0x8298] = "somebody"
    detail = exif.get_ifd(0x8769)
    detail[0xA002] = width
    detail[0xA003] = height
    detail[0x927C] = MAKER_NOTE
    detail[0x829A] = 1 / 125
    place = exif.get_ifd(0x8825)
    place[1] = "N"
    place[2] = (52.0, 31.0, 12.5)
    return exif.tobytes().removeprefix(b"Exif\0\0")


def exif_with_thumbnail(width: int, height: int, orientation: int = 1) -> bytes:
    """A little-endian EXIF block whose second directory holds a small JPEG, at the end."""
    small = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(small, "JPEG")
    thumbnail = small.getvalue()

    def directory(entries: list[tuple[int, int, int]], following: int) -> bytes:
        table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        return struct.pack("<H", len(entries)) + table + struct.pack("<I", following)

    first_at, second_at = 8, 8 + 2 + 4 * 12 + 4
    thumbnail_at = second_at + 2 + 2 * 12 + 4
    first = directory(
        [(0x100, 4, width), (0x101, 4, height), (0x112, 3, orientation), (0x128, 3, 2)], second_at
    )
    second = directory([(0x201, 4, thumbnail_at), (0x202, 4, len(thumbnail))], 0)
    return b"II*\0" + struct.pack("<I", first_at) + first + second + thumbnail


def full_picture(
    bits: int = 8, channels: int = 3, *, alpha: bool = False, height: int = 21, width: int = 33
) -> Picture:
    """A picture with all that can be held, profile only where it fits."""
    return Picture(
        pixels=noise(channels, height, width, bits),
        alpha=noise(1, height, width, bits, seed=1) if alpha else None,
        bits=bits,
        icc=SRGB if channels == 3 else None,
        exif=exif_block(),
        xmp=XMP,
        dpi=(300.0, 150.0),
    )


def vips(levels: np.ndarray, interpretation: str) -> pyvips.Image:
    """An image of H×W×bands levels."""
    return pyvips.Image.new_from_array(np.ascontiguousarray(levels)).copy(interpretation=interpretation)


def pillow_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A file as Pillow writes it; EXIF is given bare."""
    if kind == "jpeg" and "exif" in options:
        options["exif"] = b"Exif\0\0" + options["exif"].removeprefix(b"Exif\0\0")
    file = io.BytesIO()
    image.save(file, kind.upper(), **options)
    return file.getvalue()


def pillow(path: Path) -> Image.Image:
    """The file as Pillow reads it, with nothing left open."""
    image = Image.open(io.BytesIO(path.read_bytes()))
    image.load()
    return image


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header is sound and states any size; its data is one empty chunk."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
