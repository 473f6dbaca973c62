"""Read a picture file: its content decides the format, and nothing is lost unsaid."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyvips
import torch

from relume.core.errors import PictureError
from relume.core.pictures import colour, exif, formats, xmp
from relume.core.pictures.ifd import BrokenStructureError
from relume.core.pictures.opening import open_regular
from relume.core.pictures.picture import Picture
from relume.core.pictures.survey import Survey, lab_as_rgb, survey

# libvips' warnings come through this logger; without a handler, Python would print them.
logging.getLogger("pyvips").addHandler(logging.NullHandler())
# A damaged file's bytes may be quoted in such a warning. Were they not UTF-8, pyvips'
# callback would fail and Python print that.
pyvips._to_string = lambda text: (
    "" if text == pyvips.ffi.NULL else pyvips.ffi.string(text).decode("utf-8", "replace")
)

_LOADERS: Final = {
    "png": "pngload_buffer",
    "jpeg": "jpegload_buffer",
    "tiff": "tiffload_buffer",
    "webp": "webpload_buffer",
    "avif": "heifload_buffer",
}
# libjpeg invents what is missing and warns; libvips stops at a warning only before the
# next row, so never for the last ones. But it keeps the words, in one text for the whole
# process: hence a lock.
_jpeg_lock = threading.Lock()
# How EXIF's eight orientations are undone: turn left by quarters, then mirror.
_TURNS: Final = {1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False)}
_TURNS_REST: Final = {7: (1, True), 8: (1, False)}


def read(path: str | os.PathLike[str], *, max_megapixels: float = 500.0) -> Picture:
    """Read a PNG, JPEG, TIFF, WebP or AVIF file.

    The first bytes decide the format, not the name. Of files with several pictures the
    first is read. CMYK and Lab become sRGB. All this is said in the picture's notes.

    Args:
        path: The file.
        max_megapixels: The largest width times height that is decoded, in millions. It
            is checked against the header, before any memory is taken for pixels.

    Raises:
        PictureError: When the file is missing, empty, no picture, of another format,
            damaged, cut short or too large; the message is one line.
    """
    path = Path(path)
    data, kind = _take_in(path)
    try:
        return _decode(data, kind, path, max_megapixels)
    except (pyvips.Error, UnicodeDecodeError) as error:
        raise _damaged(path, kind, colour.reason(error)) from None
    except MemoryError:
        raise PictureError(
            f"{path}: memory does not suffice to decode it; make the picture smaller first"
        ) from None


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return a picture's height and width as stored (orientation not applied), from its header alone.

    Raises:
        PictureError: When it is no picture that `read` would open; its pixels may still be damaged.
    """
    path = Path(path)
    data, kind = _take_in(path)
    try:
        image = getattr(pyvips.Image, _LOADERS[kind])(data)
    except (pyvips.Error, UnicodeDecodeError) as error:
        raise _damaged(path, kind, colour.reason(error)) from None
    return image.height, image.width


def _take_in(path: Path) -> tuple[bytes, str]:
    """Return a file's content and format."""
    descriptor, size = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        try:
            head = file.read(formats.SNIFF_BYTES)
            kind = formats.sniff(head)
            if kind is None:
                raise PictureError(
                    f"{path}: this is {formats.describe_stranger(head)}; "
                    f"{formats.SUPPORTED} can be read, convert it first"
                )
            return head + file.read(), kind
        except OSError as error:
            raise PictureError(f"{path}: cannot be read: {error.strerror}") from None
        except MemoryError:
            raise PictureError(f"{path}: memory does not suffice to read its {size} bytes") from None


def _decode(data: bytes, kind: str, path: Path, max_megapixels: float) -> Picture:
    found = survey(data, kind)
    if found.lab:
        data = lab_as_rgb(data)
    if kind != "jpeg":
        return _picture(data, kind, path, max_megapixels, found)
    with _jpeg_lock:
        pyvips.vips_lib.vips_error_clear()
        picture = _picture(data, kind, path, max_megapixels, found)
        said = pyvips.ffi.string(pyvips.vips_lib.vips_error_buffer()).decode("utf-8", "replace")
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


def _picture(data: bytes, kind: str, path: Path, max_megapixels: float, found: Survey) -> Picture:
    # Without `fail_on` libvips fills what is missing with gray. Buffers are opened anew
    # each time, so a file rewritten under its name is never read stale.
    image = getattr(pyvips.Image, _LOADERS[kind])(data, fail_on="error", access="sequential")
    _check_size(image, path, max_megapixels)
    notes = _notes_on_file(image, kind, path, found)
    image, converted = _to_known_samples(image, path, found, notes)
    icc = None if converted else _fitting_profile(image, found, notes)
    block, turn = _exif_of(image, kind, found, notes)
    packet = colour.blob(image, "xmp-data")
    samples = _samples(image)
    if kind == "avif" and found.gray:
        samples = samples[..., [0, -1]] if samples.shape[2] in (2, 4) else samples[..., :1]
    dpi = found.dpi
    if dpi is None and block is not None:
        dpi = exif.resolution(block)
    quarters, mirrored = {**_TURNS, **_TURNS_REST}[turn]
    samples = np.rot90(samples, quarters)
    samples = samples[:, ::-1] if mirrored else samples
    bits = 16 if samples.dtype == np.uint16 else 8
    pixels, alpha = _to_tensors(samples, *_scale(image, kind))
    return Picture(
        pixels=pixels,
        alpha=alpha,
        bits=bits,
        icc=icc,
        exif=None if block is None else exif.upright(block),
        xmp=None if packet is None else xmp.upright(packet),
        dpi=dpi[::-1] if dpi and quarters % 2 else dpi,
        format=kind,
        notes=tuple(notes),
    )


def _check_size(image: pyvips.Image, path: Path, max_megapixels: float) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        raise PictureError(
            f"{path}: its header states {image.width}x{image.height}, {megapixels:.1f} megapixels, more than "
            f"the limit of {max_megapixels:g}; raise it (--max-megapixels, max_megapixels=) to read the file"
        )
    if image.bands > 16:
        raise PictureError(f"{path}: it has {image.bands} channels, at most 16 are read; split it first")


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


def _samples(image: pyvips.Image) -> npt.NDArray[np.uint8 | np.uint16]:
    """Decode to H×W×bands."""
    dtype = np.uint16 if str(image.format) == "ushort" else np.uint8
    raw = image.write_to_memory()
    flat: npt.NDArray[np.uint8 | np.uint16] = np.frombuffer(raw, dtype=dtype)
    return flat.reshape(image.height, image.width, image.bands)


def _scale(image: pyvips.Image, kind: str) -> tuple[int, int]:
    """Return by how many bits samples were shifted up, and their largest level below that."""
    if str(image.format) != "ushort":
        return 0, 255
    depth = (
        int(image.get("bits-per-sample")) if kind == "avif" and image.get_typeof("bits-per-sample") else 16
    )
    # libvips shifts 10 and 12 bits up with zeros behind, so white would not be 1.
    return 16 - depth, (1 << depth) - 1


def _to_tensors(
    samples: npt.NDArray[np.uint8 | np.uint16], shift: int, largest: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Turn H×W×bands levels into C×H×W and 1×H×W of 0..1."""
    height, width, bands = samples.shape
    planes = np.empty((bands, height, width), dtype=np.float32)
    for band, plane in enumerate(planes):
        level = samples[..., band]
        np.divide(level >> shift if shift else level, np.float32(largest), out=plane, dtype=np.float32)
    whole = torch.from_numpy(planes)
    colours = 1 if bands < 3 else 3
    return whole[:colours], whole[colours:] if bands > colours else None
