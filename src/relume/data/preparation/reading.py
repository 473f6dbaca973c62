"""Patches from prepared pieces, read straight from their files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from relume.core.errors import DataError
from relume.core.files import reason
from relume.core.pictures.contents import read_at
from relume.data.patches import PatchesConfig
from relume.data.preparation.records import INDEX, PIECES, read_index
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
    """

    path: Path
    start: int
    height: int
    width: int
    channels: int


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
            folder: index
            for folder, index in indices.items()
            if index is not None and index["settings"]["form"] == "npy"
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
            for row in index["photos"]:
                for name in (row["pieces"] or {"files": []})["files"]:
                    path = folder / PIECES / name
                    found = _pieces(path)
                    if len(found) != len(row["pieces"]["places"]):
                        raise DataError(f"{path} is not as {folder / INDEX} says; run relume prepare again")
                    pieces += found
                    paths.append(path)
                    facts = (name, row["sha256"], row["pieces"]["places"], found[0].height, found[0].width)
                    digest.update(f"{facts}\n".encode(errors="surrogateescape"))
        if not pieces:
            raise DataError(f"{next(iter(ready))} holds no piece: every photo was refused; see its {INDEX}")
        return cls(tuple(paths), tuple(pieces), digest.hexdigest())

    def __len__(self) -> int:
        return len(self.pieces)

    def refuse_smaller(self, side: int) -> None:
        """Refuse pieces that are smaller than `side` pixels.

        Raises:
            DataError: naming the first.
        """
        for piece in self.pieces:
            if min(piece.height, piece.width) < side:
                raise DataError(
                    f"{piece.path} has pieces of {piece.width}x{piece.height}, too small for a patch of "
                    f"{side}x{side}; prepare the photos with a larger --side or --least, "
                    f"or choose a smaller data.patch"
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

    Raises:
        DataError: pieces are too small for a patch, or a part of them is to be held out.
    """

    def __init__(
        self, pieces: PieceList, config: PatchesConfig, *, scale: int, margin: int, channels: int, seed: int
    ) -> None:
        self.pieces = pieces
        self.side = (config.patch + 2 * margin) * scale
        pieces.refuse_smaller(self.side)
        if config.held_out:
            raise DataError(
                "no part of prepared pieces can be held out, as they may overlap; "
                "take the photos themselves, or --set data.held_out=0"
            )
        self.channels = channels
        self.seed = seed

    def __getitem__(self, index: int) -> Tensor:
        random = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        number = int(random.integers(len(self.pieces)))
        piece = self.pieces.pieces[number]
        top, left = (int(random.integers(size - self.side + 1)) for size in (piece.height, piece.width))
        patch = self.pieces.patch(number, top, left, self.side)
        if self.channels == 1 and patch.shape[0] == 3:
            patch = gray_levels_of(patch)
        patch = patch.expand(self.channels, -1, -1)
        turns, mirrored = int(random.integers(4)), bool(random.integers(2))
        patch = torch.rot90(patch, turns, (1, 2))
        return (patch.flip(2) if mirrored else patch).contiguous()


def _pieces(path: Path) -> list[Piece]:
    """Return the pieces of a file by its header.

    Raises:
        DataError: it is missing, cut short or of another kind.
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
    return [
        Piece(path, start + number * height * width * channels, height, width, channels)
        for number in range(count)
    ]
