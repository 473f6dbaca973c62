"""Write a picture with everything it holds, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyvips
import torch

from relume.core.cubes import refuse_too_long, write_cube
from relume.core.errors import PictureError
from relume.core.files import check_target, whole
from relume.core.pictures import colour, exif, formats, library, xmp
from relume.core.pictures.canvas import ROWS, Canvas, NotANumberError, canvas_bytes
from relume.core.pictures.contents import Contents, Scratch, Span
from relume.core.pictures.embed import Extras, embed
from relume.core.pictures.formats import Ability
from relume.core.pictures.ifd import BrokenStructureError
from relume.core.pictures.picture import Picture, StoredPicture

_QUALITIES = {"jpeg": 95, "webp": 95, "avif": 90}
# Above this many bytes of pixels a TIFF may pass 4 GiB, where 32-bit positions end.
_BIG_TIFF = 3_500_000_000
# Bytes of JPEG coefficients that may be held for files some hundredths smaller.
_COEFFICIENTS = 1 << 27


def write(
    picture: Picture | StoredPicture,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    quality: int | None = None,
    bits: int | None = None,
) -> tuple[str, ...]:
    """Write a picture as PNG, JPEG, TIFF, WebP or AVIF, as the file name's ending says, or a cube.

    Profile, EXIF, XMP and resolution go along; EXIF and XMP get the written size. The
    file appears whole under its name or not at all.

    Defaults: PNG and TIFF lose nothing. JPEG has quality 95 and full colour resolution
    (4:4:4). WebP loses nothing when the picture came from PNG or TIFF or from no file,
    else it has quality 95. AVIF has quality 90 and 4:4:4; 16-bit pictures become 12-bit.
    PNG and TIFF are packed at a middling level, 400 megapixels in some ten seconds. JPEG files of
    more than 22 megapixels in colour (67 in gray) have standard Huffman tables, so are about 4 % larger.
    A cube goes into a .mat or .npy in single precision, in the units that it had, and under the name.

    Args:
        picture: What to write. What is on disk is encoded by strips; WebP and AVIF need the whole
            picture in memory all the same (`memory_to_write`).
        path: The file; its folder must exist.
        overwrite: Whether an existing file may be replaced.
        quality: 1..100 for JPEG, WebP and AVIF; 100 loses nothing in WebP and AVIF.
            PNG and TIFF take no notice.
        bits: 8 or 16 bits per sample; by default as the picture has. Cubes take no notice.

    Returns:
        Notes on what the format could not hold, one sentence each.

    Raises:
        OutputExistsError: When the file exists and `overwrite` is false.
        PictureError: When it cannot be written as asked; the message is one line.
    """
    path = Path(path)
    kind = formats.format_of(path)
    ability = formats.ABILITIES[kind]
    if quality is not None and not 1 <= quality <= 100:
        raise PictureError(f"{path}: quality {quality} is out of range; choose 1 to 100")
    if bits not in (None, 8, 16):
        raise PictureError(f"{path}: {bits} bits per sample cannot be written; choose 8 or 16")
    check_size(path, picture.height, picture.width)
    _refuse_other_kind(path, ability, picture.bits)
    folder = check_target(path, overwrite=overwrite, error=PictureError).parent
    if picture.cube is not None:
        refuse_too_long(path, canvas_bytes(picture.height, picture.width, picture.channels, 32))
        with whole(path, overwrite=overwrite, error=PictureError) as hidden:
            write_cube(hidden, picture.rows(0, picture.height), picture.cube, kind=kind)
        return ()
    notes: list[str] = []
    encoded: Scratch | None = None
    try:
        encoded = Scratch(folder)
        extras = _encode(picture, kind, quality, bits, encoded, notes)
        pieces, said = embed(Contents(encoded.descriptor), kind, extras)
        with whole(path, overwrite=overwrite, error=PictureError) as hidden, hidden.open("wb") as file:
            for piece in pieces:
                file.writelines(piece.blocks() if isinstance(piece, Span) else [piece])
    except NotANumberError as error:
        raise PictureError(f"{path}: {error}") from None
    except (pyvips.Error, BrokenStructureError) as error:
        # Its frames hold the encoder's file, and with that disk space.
        raise PictureError(_failure(path, ability, error.with_traceback(None))) from None
    except MemoryError:
        raise PictureError(
            f"{path}: memory does not suffice to encode {picture.size}; make it smaller"
        ) from None
    finally:
        if encoded is not None:
            encoded.close()
    return (*notes, *said)


def check_size(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Check that the format that a file name stands for takes pictures of this size.

    Raises:
        PictureError: When it does not, or the name stands for none.
    """
    ability = formats.ABILITIES[formats.format_of(path)]
    if max(width, height) > ability.side:
        raise PictureError(
            f"{os.fspath(path)}: {width}x{height} is too large for {ability.title}, whose limit is "
            f"{ability.side} a side; write PNG or TIFF instead"
        )


def depth_for(path: str | os.PathLike[str], bits: int) -> int:
    """Return the bits per sample in which a picture of 8 or 16 bits is written to a file of this name.

    A canvas of this depth is written without another one being made. Cubes have 32 bits and keep them.

    Raises:
        PictureError: When the name stands for no format, or for one of cubes where a picture is to be
            written, or the other way round.
    """
    ability = formats.ABILITIES[formats.format_of(path)]
    _refuse_other_kind(Path(path), ability, bits)
    return min(bits, ability.bits)


def _refuse_other_kind(path: Path, ability: Ability, bits: int) -> None:
    if (bits == 32) != (ability.bits == 32):
        what, endings = ("a cube", formats.CUBES) if bits == 32 else ("a picture", formats.SUFFIXES)
        raise PictureError(f"{path}: {what} cannot be written as {ability.title}; use {', '.join(endings)}")


def memory_to_write(path: str | os.PathLike[str], height: int, width: int, bands: int, bits: int) -> int:
    """Return about how many bytes of memory it takes, at the most, to encode a canvas that lies on disk.

    PNG, JPEG and TIFF are encoded by strips. The encoders of WebP and AVIF hold the whole picture several
    times over; the figures were measured on photographs of 12 and 48 megapixels.

    Args:
        path: Whose ending says the format.
        height: Rows.
        width: Columns.
        bands: 1, 2, 3 or 4, alpha included; those of a cube.
        bits: 8 or 16 per sample, as the picture has; 32 of a cube.

    Raises:
        PictureError: When the name stands for no format.
        DataError: When it stands for MATLAB's, which does not hold so large a cube.
    """
    kind = formats.format_of(path)
    if bits == 32:
        # As rows of bands, in the file's units, and in its order.
        whole_cube = canvas_bytes(height, width, bands, bits)
        refuse_too_long(Path(path), whole_cube)
        return 3 * whole_cube
    each = {"webp": 10, "avif": 14 if bits == 8 else 20}.get(kind, 0)
    # Neither format knows gray.
    colours = bands + 2 if bands < 3 else bands
    return _COEFFICIENTS + each * colours * height * width


def _failure(path: Path, ability: Ability, error: Exception) -> str:
    if refused := library.refusal(error):
        return f"{path}: cannot be written: {refused}"
    return f"{path}: the {ability.title} encoder failed ({colour.reason(error)}); try another format"


def _encode(
    picture: Picture | StoredPicture,
    kind: str,
    quality: int | None,
    bits: int | None,
    encoded: Scratch,
    notes: list[str],
) -> Extras:
    """Encode the pixels, and return what is still to go into the file."""
    ability = formats.ABILITIES[kind]
    wanted = bits or picture.bits
    depth = min(wanted, ability.bits)
    if wanted > depth:
        notes.append(
            f"{wanted} bits per sample were reduced to {depth}, the most that {ability.title} holds."
        )
    flat = picture.transparent and not ability.alpha
    if flat:
        notes.append(f"Transparency was laid onto white, as {ability.title} holds none.")
    icc = picture.icc
    if icc is not None and colour.profile_channels(icc) != picture.channels:
        notes.append("The colour profile was left out: it does not fit the picture's channels.")
        icc = None
    canvas = _fitting_canvas(picture, depth, flat)
    try:
        image = canvas.image()
        if canvas.bands < 3 and not ability.gray:
            notes.append(f"Gray was written as RGB, as {ability.title} holds no gray.")
            image, icc = _gray_as_rgb(image, icc, notes)
        block, packet = _metadata(picture, kind, notes)
        _save(image, kind, quality, depth, picture.format, icc, packet, encoded)
    finally:
        if isinstance(picture, Picture) or canvas is not picture.canvas:
            canvas.close()
    return Extras(
        width=picture.width,
        height=picture.height,
        alpha=canvas.bands in (2, 4),
        icc=icc,
        exif=block,
        xmp=packet,
        dpi=_sound_dpi(picture.dpi),
    )


def _fitting_canvas(picture: Picture | StoredPicture, depth: int, flat: bool) -> Canvas:
    """Return the picture's levels in this depth, laid onto white if asked: its own canvas where that fits."""
    folder = None
    if isinstance(picture, StoredPicture):
        if picture.canvas.bits == depth and not flat:
            return picture.canvas
        folder = picture.canvas.folder
    bands = picture.channels + (picture.transparent and not flat)
    canvas = Canvas.empty(picture.height, picture.width, bands, depth, folder=folder)
    try:
        for top in range(0, picture.height, ROWS):
            rows = picture.rows(top, min(top + ROWS, picture.height))
            if flat:
                colours, alpha = rows[:-1].clamp(0, 1), rows[-1:].clamp(0, 1)
                rows = colours.lerp(torch.ones((), device=rows.device), 1 - alpha)
            canvas.put(top, rows)
    except BaseException:
        canvas.close()
        raise
    return canvas


def _gray_as_rgb(
    image: pyvips.Image, icc: bytes | None, notes: list[str]
) -> tuple[pyvips.Image, bytes | None]:
    if icc is not None:
        try:
            turned = colour.through_profile(colour.attach(image, icc), source="srgb")
        except pyvips.Error:
            notes.append("The gray profile was left out: it is damaged and cannot be applied.")
        else:
            notes.append("The gray profile was applied and replaced by sRGB.")
            return turned, colour.blob(turned, "icc-profile-data")
    rest = image.extract_band(0)
    bands = [rest, rest, *([image.extract_band(1)] if image.bands == 2 else [])]
    space = "rgb16" if str(image.format) == "ushort" else "srgb"
    return rest.bandjoin(bands).copy(interpretation=space), None


def _metadata(
    picture: Picture | StoredPicture, kind: str, notes: list[str]
) -> tuple[bytes | None, bytes | None]:
    """Return EXIF and XMP as they hold for the written file."""
    block = picture.exif
    if block is not None:
        try:
            block = exif.fitted(exif.upright(exif.clean(block)), picture.width, picture.height)
        except BrokenStructureError as error:
            notes.append(f"EXIF was left out: it cannot be read ({error}).")
            block = None
    dpi = _sound_dpi(picture.dpi)
    if dpi is not None:
        # WebP and AVIF have no field for a resolution; EXIF is where readers look then.
        block = exif.with_resolution(block, dpi, add=kind in ("webp", "avif"))
    packet = picture.xmp
    if packet is not None:
        packet = xmp.fitted(xmp.upright(packet), picture.width, picture.height)
    return block, packet


def _sound_dpi(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    return dpi if dpi is not None and all(0 < value < 1e6 for value in dpi) else None


def _save(
    image: pyvips.Image,
    kind: str,
    quality: int | None,
    depth: int,
    source_format: str | None,
    icc: bytes | None,
    packet: bytes | None,
    encoded: Scratch,
) -> None:
    """Encode pixels alone; AVIF also profile and XMP, which libheif writes unchanged."""
    target = encoded.target(0)
    image = colour.attach(image, None)
    size = image.width * image.height * image.bands
    options: dict[str, Any] = {"keep": "none"}
    q = quality or _QUALITIES.get(kind, 0)
    if kind == "png":
        # On photographs that were enlarged, half the size that libvips' own choice (6, none) gives, as fast.
        image.pngsave_target(target, compression=4, filter="paeth", bitdepth=depth, **options)
    elif kind == "jpeg":
        # The best Huffman tables are known only once all coefficients are, two bytes for each sample.
        image.jpegsave_target(
            target, Q=q, subsample_mode="off", optimize_coding=2 * size <= _COEFFICIENTS, **options
        )
    elif kind == "tiff":
        # Level 5 takes half the time of 6 for some hundredths of size.
        options |= {"compression": "deflate", "level": 5, "predictor": "horizontal"}
        image.tiffsave_target(target, bigtiff=size * (depth // 8) > _BIG_TIFF, **options)
    elif kind == "webp":
        lossless = q == 100 or (quality is None and source_format in (None, "png", "tiff"))
        # More effort than 2 takes twice the time for half a percent where nothing is lost.
        options |= {"lossless": lossless, "effort": 2 if lossless else 4}
        image.webpsave_target(target, Q=q, exact=True, smart_subsample=True, **options)
    else:
        image = colour.attach(image, icc)
        if packet is not None:
            image.set_type(pyvips.GValue.blob_type, "xmp-data", packet)
        options |= {"keep": "icc|xmp", "bitdepth": depth, "lossless": q == 100}
        with library.all_threads():
            image.heifsave_target(target, compression="av1", Q=q, subsample_mode="off", effort=4, **options)
