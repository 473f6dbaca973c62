"""What a picture file says beside its pixels, where libvips does not tell or tells a default.

libvips gives ICC, EXIF and XMP. It does not tell an unstated resolution from a stated
72 dpi, knows nothing of the EXIF inside TIFF, and passes over what it cannot hold; so
the containers are walked here. Nothing here raises on a broken file: libvips judges
that, and a survey of what is left is good enough.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from relume.core.pictures import boxes, exif, ifd
from relume.core.pictures.contents import Contents
from relume.core.pictures.ifd import BrokenStructureError, Entry, Layout

# Tags of a TIFF file's first directory that describe the picture, not how it is stored.
DESCRIPTIVE = frozenset(
    (
        269,
        270,
        271,
        272,
        285,
        305,
        306,
        315,
        316,
        333,
        18246,
        18249,
        33432,
        40091,
        40092,
        40093,
        40094,
        40095,
        50341,
    )
)
_TIFF_LOST = {
    33723: "IPTC",
    34377: "Photoshop settings",
    37724: "Photoshop layers",
    33550: "a map position (GeoTIFF)",
    33922: "a map position (GeoTIFF)",
    34264: "a map position (GeoTIFF)",
    330: "smaller copies of the picture",
    42113: "the value that stands for missing data (GDAL)",
}


_PHOTOMETRIC = 262
# Far more than sound files have.
_MOST_PIECES = 20_000
_MOST_PIXEL_PIECES = 1_000_000
_MOST_PAGES = 10_000
_MOST_BYTES = 1 << 26
_PARTLY = "Part of what the file says beside its pixels could not be read and was left out."
_LONGEST_SIDE = 10**8
"""libvips counts no farther."""

_ANIMATED = "The file is animated; only its first picture was read."


@dataclass(kw_only=True)
class Survey:
    """What was found.

    Attributes:
        dpi: Stated resolution in pixels per inch.
        lost: What the file holds and `Picture` cannot, as nouns.
        remarks: Whole sentences for the picture's notes.
        exif: EXIF rebuilt from a TIFF file's directories.
        orientation: As a TIFF file states it.
        associated: Whether a TIFF file's colour is multiplied by its alpha.
        lab: Whether a TIFF file holds 8-bit Lab.
        gray: Whether an AVIF file has no colour.
        profile: Whether the container holds a colour profile, sound or not.
    """

    dpi: tuple[float, float] | None = None
    lost: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    exif: bytes | None = None
    orientation: int = 1
    associated: bool = False
    lab: bool = False
    gray: bool = False
    profile: bool = False

    def lose(self, what: str) -> None:
        """Remember, once, something that will not be kept."""
        if what not in self.lost:
            self.lost.append(what)

    def remark(self, sentence: str) -> None:
        """Remember, once, a sentence for the notes."""
        if sentence not in self.remarks:
            self.remarks.append(sentence)


def survey(data: Contents, kind: str) -> Survey:
    """Look through a file's container.

    Args:
        data: The whole file.
        kind: Its format, as `sniff` tells it.
    """
    found = Survey()
    walkers = {"png": _png, "jpeg": _jpeg, "tiff": _tiff, "webp": _webp, "avif": _avif}
    try:
        walkers[kind](data, found)
    except (BrokenStructureError, struct.error, IndexError, ValueError, OverflowError):
        found.remark(_PARTLY)
    return found


def lab_as_rgb(data: Contents) -> bytes:
    """Return an 8-bit Lab TIFF file marked as RGB.

    libvips 8.18 cannot read 8-bit Lab, and so reads the bare bytes; `colour.from_lab_bytes`
    takes it from there.
    """
    layout = ifd.layout_of(data)
    main = ifd.read_directory(data, ifd.first_position(data, layout), layout)
    return ifd.with_number(data[:], main, _PHOTOMETRIC, 2, layout)


def refuse_endless(data: Contents, kind: str) -> None:
    """Refuse a file that would keep libvips busy for hours, or fill the memory with what is no pixel.

    libtiff copies the values of every tag of every page, though all may name the same bytes; libheif
    takes its time with each box; libjpeg copies every segment.

    Raises:
        BrokenStructureError: When the file is of that kind.
    """
    if kind == "tiff":
        layout = ifd.layout_of(data)
        room, pages = 16 * len(data) + (1 << 20), 0
        for size in ifd.directory_sizes(data, layout):
            room, pages = room - size, pages + 1
            if room < 0:
                raise BrokenStructureError("its tags claim more bytes than the file has")
            if pages > _MOST_PAGES:
                raise BrokenStructureError(f"more than {_MOST_PAGES} pages")
    if kind == "jpeg" and _bytes_before_pixels(data) > _MOST_BYTES:
        raise BrokenStructureError(f"more than {_MOST_BYTES} bytes before its pixels")
    if kind == "avif":
        for _ in boxes.inside(data, 0, len(data)):
            pass
        if _longest_side(data) > _LONGEST_SIDE:
            raise BrokenStructureError(f"a side of {_longest_side(data)} pixels")


def _longest_side(data: Contents) -> int:
    """The longest side that an AVIF file tells of; libvips would complain of it on standard error."""
    sides = [0]
    with contextlib.suppress(BrokenStructureError, struct.error, IndexError):  # damage is judged elsewhere
        for box in boxes.walk(data, boxes.meta(data), b"iprp", b"ipco", b"ispe"):
            sides += struct.unpack(">II", data[box.start + 4 : box.start + 12])
    return max(sides)


def _bytes_before_pixels(data: Contents) -> int:
    total = 0
    with contextlib.suppress(BrokenStructureError):  # very many: those counted tell enough
        for _, start, end in jpeg_segments(data):
            total += max(0, end - start)
    return total


def _pieces() -> Iterator[int]:
    """Count the pieces of a file, up to a limit."""
    yield from range(_MOST_PIECES)
    raise BrokenStructureError(f"more than {_MOST_PIECES} pieces")


def png_chunks(data: Contents) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's type, and where its content starts and ends; of many with pixels only the first.

    Raises:
        BrokenStructureError: When there are more than any sound file has.
    """
    at = 8
    for _ in _pieces():
        kind, length = _png_head(data, at)
        if not kind:
            return
        yield kind, at + 8, at + 8 + length
        at += 12 + length
        if kind == b"IDAT":
            at = _behind_pixels(data, at)


def _behind_pixels(data: Contents, at: int) -> int:
    """Return the position behind the pixel chunks that begin at a position."""
    for _ in range(_MOST_PIXEL_PIECES):
        kind, length = _png_head(data, at)
        if kind != b"IDAT":
            return at
        at += 12 + length
    raise BrokenStructureError(f"more than {_MOST_PIXEL_PIECES} chunks of pixels")


def _png_head(data: Contents, at: int) -> tuple[bytes, int]:
    """Return the type and length of the chunk at a position; no type where there is none."""
    head = data[at : at + 12]
    return (head[4:8], int.from_bytes(head[:4], "big")) if len(head) == 12 else (b"", 0)


def _png(data: Contents, found: Survey) -> None:
    kinds = {}
    for kind, start, end in png_chunks(data):
        kinds[kind] = data[start : min(end, start + 64)]
        if kind in (b"tEXt", b"zTXt", b"iTXt") and not kinds[kind].startswith(b"XML:com.adobe.xmp\0"):
            found.lose("text comments")
        # libpng drops such a chunk without failing; a changed pixel chunk it refuses itself.
        if kind[:1].islower() and _checksum(data, start - 4, end).to_bytes(4, "big") != data[end : end + 4]:
            found.remark(_PARTLY)
    found.profile = b"iCCP" in kinds
    if b"acTL" in kinds:
        found.remark(_ANIMATED)
    if len(size := kinds.get(b"pHYs", b"")) == 9 and size[8] == 1:
        across, down = struct.unpack(">II", size[:8])
        if across and down:
            found.dpi = _per_inch(across), _per_inch(down)
    gamma = kinds.get(b"gAMA", b"")
    unusual = len(gamma) == 4 and abs(int.from_bytes(gamma, "big") - 45455) > 100
    if b"cICP" in kinds or (unusual and b"iCCP" not in kinds and b"sRGB" not in kinds):
        found.remark(
            "The file describes its colours in a way that is not kept (cICP or gAMA); "
            "they are taken as they are stored."
        )


def _checksum(data: Contents, start: int, end: int) -> int:
    checksum = 0
    for block in data.span(start, end).blocks():
        checksum = zlib.crc32(block, checksum)
    return checksum


def _per_inch(per_metre: int) -> float:
    """Return the whole dpi that rounds to this number a metre (11811: 300), else two decimals."""
    whole = round(per_metre * 0.0254)
    return float(whole) if round(whole / 0.0254) == per_metre else round(per_metre * 0.0254, 2)


def jpeg_segments(data: Contents) -> Iterator[tuple[int, int, int]]:
    """Yield each segment's marker before the pixels, and where its content starts and ends.

    Raises:
        BrokenStructureError: When there are more than any sound file has.
    """
    at = 2
    for _ in _pieces():
        if at + 4 > len(data) or data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        elif marker == 0xDA:
            return
        else:
            length = int.from_bytes(data[at + 2 : at + 4], "big")
            yield marker, at + 4, at + 2 + length
            at += 2 + length


def _jpeg(data: Contents, found: Survey) -> None:
    for marker, start, end in jpeg_segments(data):
        content = data[start:end]
        if marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12:
            unit, across, down = struct.unpack(">BHH", content[7:12])
            if unit in (1, 2) and across and down:
                factor = 2.54 if unit == 2 else 1.0
                found.dpi = round(across * factor, 4), round(down * factor, 4)
        elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
            found.lose("the extension of its XMP")
        elif marker == 0xE2 and content.startswith(b"MPF\0"):
            found.lose("further pictures (MPF)")
        elif marker == 0xE2 and content.startswith(b"ICC_PROFILE\0"):
            found.profile = True
        elif marker == 0xED:
            found.lose("IPTC and Photoshop settings")
        elif marker == 0xFE:
            found.lose("a text comment")


def riff_chunks(data: Contents) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's type, and where its content starts and ends.

    Raises:
        BrokenStructureError: When there are more than any sound file has.
    """
    at = 12
    for _ in _pieces():
        if at + 8 > len(data):
            return
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, at + 8 + length
        at += 8 + length + length % 2


def _webp(data: Contents, found: Survey) -> None:
    kinds = {kind for kind, _, _ in riff_chunks(data)}
    found.profile = b"ICCP" in kinds
    if b"ANIM" in kinds:
        found.remark(_ANIMATED)


def _avif(data: Contents, found: Survey) -> None:
    head = boxes.meta(data)
    codecs = list(boxes.walk(data, head, b"iprp", b"ipco", b"av1C"))
    gray = (box.end - box.start > 2 and data[box.start + 2] & 0x10 != 0 for box in codecs)
    found.gray = bool(codecs) and all(gray)
    profiles = [data[box.start : box.end] for box in boxes.walk(data, head, b"iprp", b"ipco", b"colr")]
    found.profile = any(profile.startswith((b"prof", b"rICC")) for profile in profiles)
    if not found.profile:
        for profile in profiles:
            primaries, transfer = struct.unpack(">HH", profile[4:8])
            if primaries not in (1, 2) or transfer not in (1, 2, 6, 13, 14, 15):
                found.remark(
                    f"The file describes its colours in a way not kept (nclx {primaries}/{transfer}); "
                    "they are taken as they are stored."
                )
    if b"avis" in data[8:32]:
        found.remark(_ANIMATED)


def _tiff(data: Contents, found: Survey) -> None:
    layout = ifd.layout_of(data)
    main = ifd.read_directory(data, ifd.first_position(data, layout), layout)
    found.dpi = exif.directory_resolution(main, layout)
    found.orientation = main.first(exif.ORIENTATION, layout) or 1
    found.profile = 34675 in main.entries
    if main.lost:
        found.remark(_PARTLY)
    found.lab = (main.first(_PHOTOMETRIC, layout), main.first(258, layout)) == (8, 8)
    found.associated = main.first(338, layout) == 1
    for tag, what in _TIFF_LOST.items():
        if tag in main.entries:
            found.lose(what)
    entries = {tag: entry for tag, entry in main.entries.items() if tag in DESCRIPTIVE}
    branches: list[tuple[int, dict[int, Entry]]] = []
    for tag in (exif.EXIF_POINTER, exif.GPS_POINTER):
        position = main.first(tag, layout)
        if position:
            # What points elsewhere loses its meaning when moved.
            branch = dict(ifd.read_directory(data, position, layout).entries)
            branch.pop(exif.INTEROP_POINTER, None)
            branches.append((tag, branch))
    if entries or any(branch for _, branch in branches):
        found.exif = _block(entries, branches, layout)


def _block(entries: dict[int, Entry], branches: list[tuple[int, dict[int, Entry]]], source: Layout) -> bytes:
    layout = Layout(source.order)
    main = entries | {exif.ORIENTATION: ifd.short(1, layout)}
    tree, position = ifd.build_tree(layout, main, branches, 8)
    return (b"II*\0" if layout.order == "<" else b"MM\0*") + layout.pack(position, 4) + tree
