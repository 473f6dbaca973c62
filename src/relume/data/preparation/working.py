"""The work on one photo: look at it, and write its pieces. Run in processes of their own, or here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from relume.core.checkpoints import file_sha256
from relume.core.errors import PictureError, RelumeError
from relume.core.files import reason, whole
from relume.core.pictures import Picture, StoredPicture, open_stored, write
from relume.data.preparation import checks
from relume.data.preparation.cutting import Box, boxes
from relume.data.preparation.judging import PreparationConfig
from relume.data.preparation.records import PIECES, Cut, Photo

_BAND = 256
# Blocks and blur are measured on the middle of a photo, a multiple of 8: enough to tell, and no gigabytes.
_MIDDLE = 2048
_LONGEST_NAME = 240


@dataclass(frozen=True, kw_only=True)
class Job:
    """A photo to be looked at or cut.

    Attributes:
        folder: that was looked through.
        source: the photo's path below it, with "/".
        bytes: size of the file.
        changed: when it was last changed, nanoseconds.
    """

    folder: Path
    source: str
    bytes: int
    changed: int

    @property
    def path(self) -> Path:
        """Where the photo lies."""
        return self.folder / self.source


def examine(job: Job, config: PreparationConfig) -> Photo:
    """Find out all that is asked about a photo; what is wrong with it becomes its `problem`."""
    known: dict[str, Any] = {"source": job.source, "bytes": job.bytes, "changed": job.changed}
    try:
        quality = checks.jpeg_quality(job.path)  # also refuses what is no ordinary file
        known |= {"sha256": file_sha256(job.path)}
        with open_stored(job.path, max_megapixels=config.max_megapixels) as stored:
            known |= {"kind": stored.format or "", "height": stored.height, "width": stored.width}
            middle = checks.luma(_middle(stored))
            small = checks.thumbnail(_brightness_of_bands(stored))
            return Photo(
                **known,
                channels=stored.channels,
                bits=stored.bits,
                quality=quality,
                blockiness=round(checks.blockiness(middle), 3),
                sharpness=round(checks.sharpness(middle), 1),
                likeness=f"{checks.likeness(small):016x}",
                problem="it has transparent parts" if _is_transparent(stored) else None,
            )
    except PictureError as error:
        return Photo(**known, problem=str(error).removeprefix(f"{job.path}: "))
    except OSError as error:
        return Photo(**known, problem=f"cannot be read: {reason(error)}")


def cut(job: Job, photo: Photo, output: Path, config: PreparationConfig) -> Cut:
    """Write a photo's pieces below `output`, each file whole or not at all.

    Raises:
        PictureError: the photo cannot be read.
        RelumeError: a piece cannot be written.
    """
    folder = output / PIECES / Path(job.source).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RelumeError(f"cannot make the folder {folder}: {reason(error)}") from None
    with open_stored(job.path, max_megapixels=config.max_megapixels) as stored:
        every = boxes(stored.height, stored.width, side=config.side, overlap=config.overlap)
        measured = [
            (box, round(checks.sharpness(checks.luma(rows)), 1)) for box, rows in _cut_out(stored, every)
        ]
        kept = [(box, sharpness) for box, sharpness in measured if sharpness >= config.sharpness]
        pieces = _cut_out(stored, [box for box, _ in kept])
        names: list[str] = []
        if kept and config.form == "npy":
            names = [_file_name(job.source, ".npy")]
            with whole(folder / names[0]) as partial, partial.open("wb") as file:
                _write_levels(file, pieces, (len(kept), every[0].height, every[0].width, stored.channels))
        elif kept:
            names = [_file_name(job.source, f"-{number:04d}.png") for number in range(1, len(kept) + 1)]
            for name, (_, rows) in zip(names, pieces, strict=True):
                picture = Picture(pixels=rows.contiguous(), bits=stored.bits, icc=stored.icc)
                write(picture, folder / name, overwrite=True)
    return Cut(
        source=job.source,
        sha256=photo.sha256,
        files=[(Path(job.source).parent / name).as_posix() for name in names],
        height=every[0].height,
        width=every[0].width,
        places=[[box.top, box.left] for box, _ in kept],
        sharpness=[sharpness for _, sharpness in kept],
        dropped=len(every) - len(kept),
        bytes=sum((folder / name).stat().st_size for name in names),
    )


def _file_name(source: str, ending: str) -> str:
    """Name a file after its photo, with the photo's own ending: `a.jpg` and `a.png` may lie side by side."""
    name = Path(source).name
    encoded = name.encode(errors="surrogateescape")
    if len(encoded) <= _LONGEST_NAME:
        return f"{name}{ending}"
    start = encoded[: _LONGEST_NAME - 65].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(encoded).hexdigest()}{ending}"


def _middle(stored: StoredPicture) -> Tensor:
    top, left = ((size - min(size, _MIDDLE)) // 2 for size in (stored.height, stored.width))
    rows = stored.rows(top, min(top + _MIDDLE, stored.height))
    return rows[: stored.channels, :, left : left + _MIDDLE]


def _brightness_of_bands(stored: StoredPicture) -> Iterator[Tensor]:
    for top in range(0, stored.height, _BAND):
        yield checks.luma(stored.rows(top, min(top + _BAND, stored.height))[: stored.channels])


def _is_transparent(stored: StoredPicture) -> bool:
    return stored.transparent and any(
        bool((stored.rows(top, min(top + _BAND, stored.height))[-1] < 1).any())
        for top in range(0, stored.height, _BAND)
    )


def _cut_out(stored: StoredPicture, places: list[Box]) -> Iterator[tuple[Box, Tensor]]:
    """Yield each piece `C h w`, float 0..1; rows are fetched once for all pieces side by side."""
    top, rows = -1, torch.empty(0)
    for box in places:
        if box.top != top:
            top, rows = box.top, stored.rows(box.top, box.top + box.height)[: stored.channels]
        yield box, rows[:, :, box.left : box.left + box.width]


def _write_levels(
    file: BinaryIO, pieces: Iterator[tuple[Box, Tensor]], shape: tuple[int, int, int, int]
) -> None:
    """Write pieces as one .npy array P×h×w×C of uint8, one after the other."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for _, rows in pieces:
        levels = rows.mul(255).round_().to(torch.uint8)
        file.write(levels.permute(1, 2, 0).contiguous().numpy().tobytes())
