"""Read a picture or a cube: its content decides the format, and nothing is lost unsaid."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyvips

from relume.core.cubes import read_cube
from relume.core.errors import PictureError
from relume.core.files import reason
from relume.core.pictures import colour, exif, formats, library, xmp
from relume.core.pictures.canvas import Canvas, canvas_bytes
from relume.core.pictures.contents import Contents
from relume.core.pictures.ifd import BrokenStructureError
from relume.core.pictures.opening import open_regular
from relume.core.pictures.picture import Picture, StoredPicture
from relume.core.pictures.survey import Survey, lab_as_rgb, refuse_endless, survey

_LOADERS: Final = {
    "png": "pngload_source",
    "jpeg": "jpegload_source",
    "tiff": "tiffload_source",
    "webp": "webpload_source",
    "avif": "heifload_source",
}
_CUBES: Final = frozenset(formats.CUBES.values())
# libjpeg invents what is missing and warns; libvips stops at a warning only before the
# next row, so never for the last ones. But it keeps the words, in one text for the whole
# process: hence a lock.
_jpeg_lock = threading.Lock()
# Of profile, EXIF and XMP each.
_MOST_BYTES: Final = 1 << 25
# How EXIF's eight orientations are undone: turn left by quarters, then mirror.
_TURNS: Final = {
    1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True),
    5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False),
}  # fmt: skip


def read(path: str | os.PathLike[str], *, max_megapixels: float = 500.0, cubes: bool = False) -> Picture:
    """Read a PNG, JPEG, TIFF, WebP or AVIF file.

    The first bytes decide the format, not the name. Of files with several pictures the
    first is read. CMYK and Lab become sRGB. All this is said in the picture's notes.

    Args:
        path: The file.
        max_megapixels: The largest width times height that is decoded, in millions. It
            is checked against the header, before any memory is taken for pixels.
        cubes: Whether a hyperspectral cube, in a .mat or .npy, will do as well.

    Raises:
        PictureError: When the file is missing, empty, no picture, of another format,
            damaged, cut short or too large; the message is one line.
        RelumeError: When a .mat or .npy holds no cube, several, or is damaged.
    """
    with open_stored(path, max_megapixels=max_megapixels, cubes=cubes) as stored:
        return stored.picture()


def open_stored(
    path: str | os.PathLike[str],
    *,
    max_megapixels: float = 500.0,
    folder: Path | None = None,
    memory: int | None = None,
    cubes: bool = False,
) -> StoredPicture:
    """Read a file as `read` does, but into levels, which go on disk where they would take too much memory.

    PNG, TIFF and most JPEG are decoded by strips. Interlaced PNG, progressive JPEG, WebP and AVIF
    need their whole picture in memory while they are decoded, whatever `memory` says.

    Args:
        path: The file.
        max_megapixels: As of `read`.
        folder: On whose disk the levels may lie; None keeps them in memory.
        memory: The most bytes of levels that stay in memory where there is a folder; None for any number.
        cubes: As of `read`.

    Raises:
        PictureError: As `read` does, and when the disk lacks the room.
    """
    path = Path(path)
    with _opened(path, cubes=cubes) as (contents, kind):
        if kind in _CUBES:
            return _cube(path, kind, _Limits(max_megapixels, folder, memory))
        try:
            return _decode(contents, kind, path, _Limits(max_megapixels, folder, memory))
        except (pyvips.Error, UnicodeDecodeError, BrokenStructureError) as error:
            # Its frames hold the files that were open.
            error.with_traceback(None)
            if refused := library.refusal(error):
                raise PictureError(f"{folder}: the levels of {path} cannot be written: {refused}") from None
            raise _damaged(path, kind, colour.reason(error)) from None
        except MemoryError:
            raise PictureError(
                f"{path}: memory does not suffice to decode it; make the picture smaller first"
            ) from None


def read_size(path: str | os.PathLike[str], *, cubes: bool = False) -> tuple[int, int]:
    """Return the height and width that `read` gives a picture, orientation applied, from its header alone.

    Args:
        path: The file.
        cubes: As of `read`. They are read whole, as MATLAB's have no header to tell.

    Raises:
        PictureError: When it is no picture that `read` would open; its pixels may still be damaged.
        RelumeError: As `read` of cubes.
    """
    path = Path(path)
    with _opened(path, cubes=cubes) as (contents, kind):
        if kind in _CUBES:
            _, height, width = read_cube(path).bands.shape
            return height, width
        try:
            found = survey(contents, kind)
            image = _image(contents, kind, found)
        except (pyvips.Error, UnicodeDecodeError, BrokenStructureError) as error:
            raise _damaged(path, kind, colour.reason(error)) from None
        _, turn = _exif_of(image, kind, found, notes=[])
        quarters, _ = _TURNS[turn]
        return (image.width, image.height) if quarters % 2 else (image.height, image.width)


@dataclass(frozen=True)
class _Limits:
    """What the caller allows; as of `open_stored`."""

    max_megapixels: float
    folder: Path | None
    memory: int | None

    def folder_for(self, height: int, width: int, bands: int, bits: int) -> Path | None:
        """Return where so many levels are to lie."""
        size = canvas_bytes(height, width, bands, bits)
        return self.folder if self.memory is not None and size > self.memory else None


@contextmanager
def _opened(path: Path, *, cubes: bool) -> Iterator[tuple[Contents, str]]:
    """Open a picture file; gives its content and format."""
    descriptor = open_regular(path)
    try:
        contents = Contents(descriptor)
        head = contents[: formats.SNIFF_BYTES]
        kind = formats.sniff(head)
        if kind is None:
            raise PictureError(
                f"{path}: this is {formats.describe_stranger(head)}; "
                f"{formats.SUPPORTED} can be read, convert it first"
            )
        if kind in _CUBES and not cubes:
            title = formats.ABILITIES[kind].title
            raise PictureError(
                f"{path}: this is a file of {title}, perhaps a hyperspectral cube; here pictures are wanted"
            )
        yield contents, kind
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {reason(error)}") from None
    finally:
        os.close(descriptor)


def _decode(contents: Contents, kind: str, path: Path, limits: _Limits) -> StoredPicture:
    found = survey(contents, kind)
    if kind != "jpeg":
        return _picture(contents, kind, path, limits, found)
    with _jpeg_lock:
        library.forget()
        picture = _picture(contents, kind, path, limits, found)
        said = library.said()
    if "premature end" in said:
        raise _damaged(path, kind, "premature end of the data")
    if "Corrupt JPEG data" in said:
        damage = said.split("Corrupt JPEG data:")[1].splitlines()[0].strip()
        note = f"The JPEG data is damaged in places ({damage}); what could be decoded was read."
        picture = picture.replace(notes=(*picture.notes, note))
    return picture


def _damaged(path: Path, kind: str, why: str) -> PictureError:
    title = formats.ABILITIES[kind].title
    return PictureError(
        f"{path}: the {title} data is damaged or cut short ({why}); get the file anew or "
        "save it again with another program"
    )


def _image(contents: Contents, kind: str, found: Survey) -> pyvips.Image:
    """Open the file with libvips, which has then read its header."""
    refuse_endless(contents, kind)
    # Without `fail_on` libvips fills what is missing with gray.
    options = {"fail_on": "error", "access": "sequential"}
    if found.lab:
        return pyvips.Image.tiffload_buffer(lab_as_rgb(contents), **options)
    return getattr(pyvips.Image, _LOADERS[kind])(contents.source(), **options)


def _picture(contents: Contents, kind: str, path: Path, limits: _Limits, found: Survey) -> StoredPicture:
    image = _image(contents, kind, found)
    _check_size(image.height, image.width, path, limits.max_megapixels)
    if image.bands > 16:
        raise PictureError(f"{path}: it has {image.bands} channels, at most 16 are read; split it first")
    notes = _notes_on_file(image, kind, path, found)
    image, converted = _to_known_samples(image, path, found, notes)
    icc = None if converted else _fitting_profile(image, found, notes)
    icc = _bounded(icc, "The colour profile", notes)
    block, turn = _exif_of(image, kind, found, notes)
    block = _bounded(block, "EXIF", notes)
    packet = _bounded(colour.blob(image, "xmp-data"), "XMP", notes)
    bits = _bits(image, kind)
    if 8 < bits < 16:
        # libvips shifts 10 and 12 bits up with zeros behind, so white would not be 1.
        image = image >> (16 - bits)
    if kind == "avif" and found.gray:
        gray = image.extract_band(0)
        image = gray.bandjoin(image.extract_band(image.bands - 1)) if image.bands in (2, 4) else gray
    dpi = found.dpi
    if dpi is None and block is not None:
        dpi = exif.resolution(block)
    quarters, mirrored = _TURNS[turn]
    place = limits.folder_for(image.height, image.width, image.bands, bits)
    decoded = Canvas.decoded(image, bits, folder=place)
    try:
        canvas = decoded.turned(quarters, mirrored=mirrored)
    except BaseException:
        decoded.close()
        raise
    if canvas is not decoded:
        decoded.close()
    return StoredPicture(
        canvas=canvas,
        bits=8 if bits == 8 else 16,
        icc=icc,
        exif=None if block is None else exif.upright(block),
        xmp=None if packet is None else xmp.upright(packet),
        dpi=dpi[::-1] if dpi and quarters % 2 else dpi,
        format=kind,
        notes=tuple(notes),
    )


def _cube(path: Path, kind: str, limits: _Limits) -> StoredPicture:
    found = read_cube(path)
    bands, height, width = found.bands.shape
    _check_size(height, width, path, limits.max_megapixels)
    notes = (f"Not kept from the file: {', '.join(found.beside)}.",) if found.beside else ()
    canvas = Canvas.empty(height, width, bands, 32, folder=limits.folder_for(height, width, bands, 32))
    try:
        canvas.put(0, found.bands)
    except BaseException:
        canvas.close()
        raise
    return StoredPicture(canvas=canvas, bits=32, format=kind, notes=notes, cube=found.form)


def _check_size(height: int, width: int, path: Path, max_megapixels: float) -> None:
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise PictureError(
            f"{path}: its header states {width}x{height}, {megapixels:.1f} megapixels, more than "
            f"the limit of {max_megapixels:g}; raise it (--max-megapixels, max_megapixels=) to read the file"
        )


def _notes_on_file(image: pyvips.Image, kind: str, path: Path, found: Survey) -> list[str]:
    notes = []
    title = formats.ABILITIES[kind].title
    expected = formats.SUFFIXES.get(path.suffix.lower())
    if expected is not None and expected != kind:
        notes.append(
            f"The file holds {title} although its name ends in {path.suffix}; it was read as {title}."
        )
    pages = int(image.get("n-pages")) if image.get_typeof("n-pages") else 1
    if pages > 1 and not any("animated" in remark for remark in found.remarks):
        notes.append(f"The file holds {pages} pictures; only the first was read.")
    notes += found.remarks
    if image.get_typeof("gainmap-data"):
        found.lose("its gain map for HDR screens")
    if found.lost:
        notes.append(f"Not kept from the file: {', '.join(found.lost)}.")
    if found.associated and image.bands in (2, 4):
        notes.append("Colour that was stored multiplied by alpha was divided by it again.")
    depth = int(image.get("bits-per-sample")) if image.get_typeof("bits-per-sample") else 8
    if image.get_typeof("palette") and image.get("palette"):
        notes.append("Palette colours were expanded to full colour.")
    elif depth < 8:
        notes.append(f"{depth}-bit samples were expanded to 8 bits.")
    elif depth in (10, 12):
        notes.append(f"{depth}-bit samples are treated as 16 bits.")
    return notes


def _to_known_samples(
    image: pyvips.Image, path: Path, found: Survey, notes: list[str]
) -> tuple[pyvips.Image, bool]:
    """Return the image as 8 or 16-bit gray or RGB (and alpha), and whether its colours were converted."""
    if found.lab and image.bands >= 3:
        image, said = colour.from_lab_bytes(image), [colour.LAB_NOTE]
    else:
        image, said = colour.to_gray_or_rgb(image)
    notes += said
    if str(image.format) not in ("uchar", "ushort"):
        raise PictureError(
            f"{path}: its samples are of type {image.format}; "
            "8 and 16-bit whole numbers can be read, convert it first"
        )
    wanted = 4 if image.bands >= 3 else image.bands
    if image.bands > wanted:
        notes.append(
            f"Of {image.bands} channels only the first {wanted} were read, as red, green, blue and alpha."
        )
        image = image.extract_band(0, n=wanted)
    return image, bool(said)


def _fitting_profile(image: pyvips.Image, found: Survey, notes: list[str]) -> bytes | None:
    icc = colour.blob(image, "icc-profile-data")
    if icc is None and found.profile:
        notes.append("The colour profile was left out: it is damaged or does not fit.")
    if icc is not None and colour.profile_channels(icc) != (1 if image.bands < 3 else 3):
        notes.append("The colour profile was left out: it does not fit the picture's channels.")
        return None
    return icc


def _exif_of(image: pyvips.Image, kind: str, found: Survey, notes: list[str]) -> tuple[bytes | None, int]:
    """Return the EXIF block and the orientation that is still to be applied."""
    if kind == "tiff":
        return found.exif, found.orientation if 1 <= found.orientation <= 8 else 1
    block = colour.blob(image, "exif-data")
    if block is None:
        return None, 1
    try:
        block = exif.clean(block)
        # AVIF turns by its own properties, which libheif has applied; EXIF only repeats them.
        return block, 1 if kind == "avif" else exif.orientation(block)
    except BrokenStructureError as error:
        notes.append(f"EXIF was left out: it cannot be read ({error}).")
        return None, 1


def _bounded(block: bytes | None, what: str, notes: list[str]) -> bytes | None:
    """Return a block of metadata unless it is larger than any sound one."""
    if block is None or len(block) <= _MOST_BYTES:
        return block
    notes.append(f"{what} was left out: it has {len(block)} bytes, at most {_MOST_BYTES} are taken over.")
    return None


def _bits(image: pyvips.Image, kind: str) -> int:
    """Return how many bits of the samples are used."""
    if str(image.format) != "ushort":
        return 8
    return int(image.get("bits-per-sample")) if kind == "avif" and image.get_typeof("bits-per-sample") else 16
