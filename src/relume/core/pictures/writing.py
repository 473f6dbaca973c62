"""Write a picture with everything it holds, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips
import torch

from relume.core.errors import PictureError
from relume.core.files import check_target, whole
from relume.core.pictures import colour, exif, formats, xmp
from relume.core.pictures.embed import Extras, embed
from relume.core.pictures.formats import Ability
from relume.core.pictures.ifd import BrokenStructureError
from relume.core.pictures.picture import Picture

_QUALITIES = {"jpeg": 95, "webp": 95, "avif": 90}
# Rows turned into whole levels at a time: the float copy stays small beside the picture.
_ROWS = 256
# Above this many bytes of pixels a TIFF may pass 4 GiB, where 32-bit positions end.
_BIG_TIFF = 3_500_000_000


def write(
    picture: Picture,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    quality: int | None = None,
    bits: int | None = None,
) -> tuple[str, ...]:
    """Write a picture as PNG, JPEG, TIFF, WebP or AVIF, as the file name's ending says.

    Profile, EXIF, XMP and resolution go along; EXIF and XMP get the written size. The
    file appears whole under its name or not at all.

    Defaults: PNG and TIFF lose nothing. JPEG has quality 95 and full colour resolution
    (4:4:4). WebP loses nothing when the picture came from PNG or TIFF or from no file,
    else it has quality 95. AVIF has quality 90 and 4:4:4; 16-bit pictures become 12-bit.

    Args:
        picture: What to write.
        path: The file; its folder must exist.
        overwrite: Whether an existing file may be replaced.
        quality: 1..100 for JPEG, WebP and AVIF; 100 loses nothing in WebP and AVIF.
            PNG and TIFF take no notice.
        bits: 8 or 16 bits per sample; by default as the picture has.

    Returns:
        Notes on what the format could not hold, one sentence each.

    Raises:
        OutputExistsError: When the file exists and `overwrite` is false.
        PictureError: When it cannot be written as asked; the message is one line.
    """
    path = Path(path)
    kind = formats.format_of(path)
    ability = formats.ABILITIES[kind]
    _check_wishes(picture, path, ability, quality, bits)
    check_target(path, overwrite=overwrite, error=PictureError)
    notes: list[str] = []
    depth = _depth(picture, ability, bits, notes)
    try:
        image, icc = _image(picture, ability, depth, path, notes)
        block, packet = _metadata(picture, kind, notes)
        data = _encode(image, kind, picture, quality, depth, icc, packet)
        extras = Extras(
            width=picture.width,
            height=picture.height,
            alpha=image.bands in (2, 4),
            icc=icc,
            exif=block,
            xmp=packet,
            dpi=_sound_dpi(picture.dpi),
        )
        pieces, said = embed(data, kind, extras)
    except (pyvips.Error, BrokenStructureError) as error:
        raise PictureError(
            f"{path}: the {ability.title} encoder failed ({colour.reason(error)}); try another format"
        ) from None
    except MemoryError:
        raise PictureError(
            f"{path}: memory does not suffice to encode {picture.size}; make it smaller"
        ) from None
    with whole(path, overwrite=overwrite, error=PictureError) as hidden, hidden.open("wb") as file:
        file.writelines(pieces)
    return (*notes, *said)


def _check_wishes(
    picture: Picture, path: Path, ability: Ability, quality: int | None, bits: int | None
) -> None:
    if quality is not None and not 1 <= quality <= 100:
        raise PictureError(f"{path}: quality {quality} is out of range; choose 1 to 100")
    if bits not in (None, 8, 16):
        raise PictureError(f"{path}: {bits} bits per sample cannot be written; choose 8 or 16")
    if max(picture.width, picture.height) > ability.side:
        raise PictureError(
            f"{path}: {picture.size} is too large for {ability.title}, whose limit is {ability.side} a side; "
            "write PNG or TIFF instead"
        )


def _depth(picture: Picture, ability: Ability, bits: int | None, notes: list[str]) -> int:
    wanted = bits or picture.bits
    if wanted > ability.bits:
        notes.append(
            f"{wanted} bits per sample were reduced to {ability.bits}, the most that {ability.title} holds."
        )
    return min(wanted, ability.bits)


def _image(
    picture: Picture, ability: Ability, depth: int, path: Path, notes: list[str]
) -> tuple[pyvips.Image, bytes | None]:
    """Return what the encoder is to see, and the profile that belongs to it."""
    alpha = picture.alpha
    pixels = picture.pixels
    if bool(torch.isnan(pixels).any()) or (alpha is not None and bool(torch.isnan(alpha).any())):
        raise PictureError(
            f"{path}: the picture holds values that are no numbers (NaN); restore it again in float32"
        )
    if alpha is not None and not ability.alpha:
        pixels = pixels.clamp(0, 1).lerp(torch.ones((), device=pixels.device), 1 - alpha.clamp(0, 1))
        notes.append(f"Transparency was laid onto white, as {ability.title} holds none.")
        alpha = None
    icc = picture.icc
    if icc is not None and colour.profile_channels(icc) != picture.channels:
        notes.append("The colour profile was left out: it does not fit the picture's channels.")
        icc = None
    levels = _levels(pixels, alpha, depth)
    height, width, bands = levels.shape
    gray = bands < 3
    deep = depth > 8
    image = pyvips.Image.new_from_memory(levels.data, width, height, bands, "ushort" if deep else "uchar")
    space = ("grey16" if deep else "b-w") if gray else ("rgb16" if deep else "srgb")
    image = image.copy(interpretation=space)
    if gray and not ability.gray:
        notes.append(f"Gray was written as RGB, as {ability.title} holds no gray.")
        image, icc = _gray_as_rgb(image, icc, notes)
    return image, icc


def _gray_as_rgb(
    image: pyvips.Image, icc: bytes | None, notes: list[str]
) -> tuple[pyvips.Image, bytes | None]:
    if icc is None:
        rest = image.extract_band(0)
        bands = [rest, rest, *([image.extract_band(1)] if image.bands == 2 else [])]
        space = "rgb16" if str(image.format) == "ushort" else "srgb"
        return rest.bandjoin(bands).copy(interpretation=space), None
    notes.append("The gray profile was applied and replaced by sRGB.")
    image = colour.through_profile(colour.attach(image, icc), source="srgb")
    return image, colour.blob(image, "icc-profile-data")


def _levels(
    pixels: torch.Tensor, alpha: torch.Tensor | None, depth: int
) -> npt.NDArray[np.uint8 | np.uint16]:
    """Turn 0..1 into H×W×bands whole levels: clamped, halves rounded up."""
    planes = [*pixels] if alpha is None else [*pixels, alpha[0]]
    height, width = pixels.shape[1:]
    largest = (1 << depth) - 1
    dtype = np.uint16 if depth > 8 else np.uint8
    # libheif takes the upper bits of 16 where fewer are written.
    shift = 16 - depth if depth > 8 else 0
    levels: npt.NDArray[np.uint8 | np.uint16] = np.empty((height, width, len(planes)), dtype=dtype)
    for top in range(0, height, _ROWS):
        for band, plane in enumerate(planes):
            rows = plane[top : top + _ROWS].detach().to("cpu", torch.float32).clamp(0, 1)
            whole = rows.mul(largest).add_(0.5).floor_().numpy().astype(dtype)
            levels[top : top + _ROWS, :, band] = whole << shift if shift else whole
    return levels


def _metadata(picture: Picture, kind: str, notes: list[str]) -> tuple[bytes | None, bytes | None]:
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


def _encode(
    image: pyvips.Image,
    kind: str,
    picture: Picture,
    quality: int | None,
    depth: int,
    icc: bytes | None,
    packet: bytes | None,
) -> bytes:
    """Encode pixels alone; AVIF also profile and XMP, which libheif writes unchanged."""
    image = colour.attach(image, None)
    options: dict[str, Any] = {"keep": "none"}
    q = quality or _QUALITIES.get(kind, 0)
    if kind == "png":
        return bytes(image.pngsave_buffer(compression=6, bitdepth=depth, **options))
    if kind == "jpeg":
        return bytes(image.jpegsave_buffer(Q=q, subsample_mode="off", optimize_coding=True, **options))
    if kind == "tiff":
        big = image.width * image.height * image.bands * (depth // 8) > _BIG_TIFF
        options |= {"compression": "deflate", "predictor": "horizontal", "bigtiff": big}
        return bytes(image.tiffsave_buffer(**options))
    if kind == "webp":
        lossless = q == 100 or (quality is None and picture.format in (None, "png", "tiff"))
        # More effort than 2 takes twice the time for half a percent where nothing is lost.
        options |= {"lossless": lossless, "effort": 2 if lossless else 4}
        return bytes(image.webpsave_buffer(Q=q, exact=True, smart_subsample=True, **options))
    image = colour.attach(image, icc)
    if packet is not None:
        image.set_type(pyvips.GValue.blob_type, "xmp-data", packet)
    return bytes(
        image.heifsave_buffer(
            compression="av1",
            Q=q,
            lossless=q == 100,
            bitdepth=depth,
            subsample_mode="off",
            effort=4,
            keep="icc|xmp",
        )
    )
