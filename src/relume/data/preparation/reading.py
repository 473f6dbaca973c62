"""Patches from prepared pieces, read straight from their files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from relume.core.errors import DataError
from relume.core.files import reason
from relume.core.pictures.contents import read_at
from relume.data.degradations.base import Place, Size
from relume.data.patches import PatchesConfig, too_small
from relume.data.preparation.records import INDEX, PIECES, Indexed, read_index
from relume.nn.colour import gray_levels_of


@dataclass(frozen=True)
class Piece:
    """A piece's levels H×W×C of uint8 in a .npy file.

    Attributes:
        path: of the file.
        start: the byte where its levels begin.
        height: pixels.
        width: pixels.
        channels: 1 gray, 3 RGB.
        photo: the photo's file below the folder that was prepared.
        size: of the photo.
        top: first row of the piece in the photo.
        left: first column of the piece in the photo.
    """

    path: Path
    start: int
    height: int
    width: int
    channels: int
    photo: Path
    size: Size
    top: int
    left: int


@dataclass(frozen=True)
class PieceList:
    """The pieces of prepared folders, in a fixed order; the counterpart of `patches.PhotoList`.

    Files are opened for each patch and only its rows are read: as quick as mapping them, and the memory
    that a process is said to use stays its own.

    Attributes:
        paths: every file, for counting.
        pieces: every piece.
        digest: SHA-256 over what was cut from which photos, to recognise the same pieces again.
    """

    paths: tuple[Path, ...]
    pieces: tuple[Piece, ...]
    digest: str

    @classmethod
    def find(cls, folders: tuple[Path, ...]) -> PieceList | None:
        """List the pieces of folders that `relume prepare` has written as .npy; None where none is one.

        Raises:
            DataError: an index or a file is damaged, a preparation is unfinished, or photos that were not
                prepared are among the folders.
        """
        indices = {folder: read_index(folder) for folder in folders if folder.is_dir()}
        ready = {
            folder: index for folder, index in indices.items() if index is not None and index.form == "npy"
        }
        if not ready:
            return None
        for folder in folders:
            if folder not in ready:
                raise DataError(
                    f"{folder} is not prepared as .npy, but {next(iter(ready))} is; prepare both or neither"
                )
        pieces: list[Piece] = []
        paths: list[Path] = []
        digest = hashlib.sha256()
        for folder, index in ready.items():
            for photo in index.photos:
                for name in photo.files:
                    path = folder / PIECES / name
                    found = _pieces(path, photo, folder / INDEX)
                    pieces += found
                    paths.append(path)
                    facts = (name, photo.sha256, photo.places, found[0].height, found[0].width)
                    digest.update(f"{facts}\n".encode(errors="surrogateescape"))
        if not pieces:
            raise DataError(f"{next(iter(ready))} holds no piece: every photo was refused; see its {INDEX}")
        return cls(tuple(paths), tuple(pieces), digest.hexdigest())

    def __len__(self) -> int:
        return len(self.pieces)

    def sizes(self) -> Iterator[tuple[Path, Size]]:
        """Yield the photos' files, below the folders that were prepared, and their sizes."""
        yield from dict.fromkeys((piece.photo, piece.size) for piece in self.pieces)

    def refuse_smaller(self, patch: int, *, scale: int, margin: int) -> None:
        """Refuse pieces that are smaller than a patch.

        Args:
            patch: side of the low-resolution patch, pixels.
            scale: high-resolution pixels for each low-resolution one.
            margin: low-resolution pixels on each side that are cut off after degrading.

        Raises:
            DataError: naming the smallest, and what would fit.
        """
        smallest = min(self.pieces, key=lambda piece: min(piece.height, piece.width))
        shortest = min(smallest.height, smallest.width)
        if shortest < (patch + 2 * margin) * scale:
            raise DataError(
                f"{smallest.path} has pieces of {smallest.width}x{smallest.height}, "
                f"{too_small(shortest, patch, scale, margin)} or prepare the photos with a larger --side or "
                "--least"
            )

    def patch(self, index: int, top: int, left: int, side: int) -> Tensor:
        """Read a patch of a piece, uint8 C×side×side.

        Raises:
            DataError: the file is gone or was cut short.
        """
        piece = self.pieces[index]
        row = piece.width * piece.channels
        try:
            descriptor = os.open(piece.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                data = read_at(descriptor, piece.start + top * row, side * row)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DataError(f"{piece.path} cannot be read: {reason(error)}") from None
        if len(data) != side * row:
            raise DataError(f"{piece.path} was cut short; run relume prepare again")
        rows = np.frombuffer(data, np.uint8).reshape(side, piece.width, piece.channels)
        return torch.from_numpy(rows[:, left : left + side].transpose(2, 0, 1).copy())


class PiecePatches(Dataset[Tensor]):
    """What `patches.Patches` gives, from pieces: `C×(p+2m)s×(p+2m)s` as uint8, by seed and index alone.

    Args:
        pieces: where patches come from; each piece is as likely as any other.
        config: p, the side of the low-resolution patch; the rest concerns photos.
        scale: s, high-resolution pixels for each low-resolution one.
        margin: m, low-resolution pixels on each side that are cut off after degrading.
        channels: 3 gives gray pieces as RGB, 1 colour as gray, as `patches.Patches` does.
        seed: of every choice.
        cubes: whether the model takes cubes.

    Raises:
        DataError: pieces are too small for a patch, the model takes cubes, or a part is to be held out.
    """

    def __init__(
        self,
        pieces: PieceList,
        config: PatchesConfig,
        *,
        scale: int,
        margin: int,
        channels: int,
        seed: int,
        cubes: bool = False,
    ) -> None:
        self.pieces = pieces
        self.side = (config.patch + 2 * margin) * scale
        pieces.refuse_smaller(config.patch, scale=scale, margin=margin)
        if cubes:
            raise DataError(
                f"{pieces.paths[0]} holds pieces of photos, but the model takes cubes of {channels} bands"
            )
        if config.held_out:
            raise DataError(
                "no part of prepared pieces can be held out, as they may overlap; "
                "take the photos themselves, or --set data.held_out=0"
            )
        self.channels = channels
        self.seed = seed

    def __getitem__(self, index: int) -> Tensor:
        return self.located(index)[0]

    def sizes(self) -> Iterator[tuple[Path, Size]]:
        """Yield the photos' files and sizes, as of `PieceList`."""
        return self.pieces.sizes()

    def located(self, index: int) -> tuple[Tensor, Place]:
        """Return a patch and where it lies in its photo."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        number = int(random.integers(len(self.pieces)))
        piece = self.pieces.pieces[number]
        top, left = (int(random.integers(size - self.side + 1)) for size in (piece.height, piece.width))
        patch = self.pieces.patch(number, top, left, self.side)
        if self.channels == 1 and patch.shape[0] == 3:
            patch = gray_levels_of(patch)
        patch = patch.expand(self.channels, -1, -1)
        turns, mirrored = int(random.integers(4)), bool(random.integers(2))
        in_photo = (piece.top + top, piece.left + left)
        place = Place(piece.photo, piece.size, *in_photo, (self.side, self.side), turns, mirrored)
        patch = torch.rot90(patch, turns, (1, 2))
        return (patch.flip(2) if mirrored else patch).contiguous(), place


def _pieces(path: Path, photo: Indexed, index: Path) -> list[Piece]:
    """Return the pieces of a file by its header, and by what the index tells of its photo.

    Raises:
        DataError: it is missing, cut short or of another kind, or not as the index says.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version}")
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            if (
                kind != np.uint8
                or len(shape) != 4
                or os.fstat(file.fileno()).st_size != start + np.prod(shape)
            ):
                raise ValueError(f"{kind} of {shape}")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is missing, cut short or no file of pieces ({error}); run relume prepare again"
        ) from None
    count, height, width, channels = (int(size) for size in shape)
    # A file of no piece is never written; the caller reads the first one's size.
    if not count or count != len(photo.places):
        raise DataError(f"{path} is not as {index} says; run relume prepare again")
    source, size = Path(photo.source), (photo.height, photo.width)
    return [
        Piece(
            path, start + number * height * width * channels, height, width, channels, source, size, top, left
        )
        for number, (top, left) in enumerate(photo.places)
    ]
