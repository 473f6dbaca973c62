"""Random patches a second, and disk space: photos decoded whole, pieces as PNG, as .npy, in LMDB.

    python benchmarks/data_loading.py PHOTOS [--patch 160] [--side 512] [--overlap 128] [--cold]

PHOTOS is a folder of photos; they are written anew, in each of the ways, into a temporary folder
(--work chooses where). Every way gives the same kind of patch, a uint8 tensor C×p×p of its own.
Rounds are interleaved and the fastest of each is taken, as the machine may be shared. With --cold
the system is asked before each round to forget what it keeps of the files, so the disk is measured
too, by 300 patches at random. LMDB is left out where it is not installed (pip install lmdb).
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from relume.core.pictures import Picture, open_stored, pictures_in, read, write
from relume.data.preparation.cutting import boxes

Levels = np.ndarray
Draw = Callable[[random.Random, int], Tensor]
Way = tuple[Callable[[], Draw], Path]
_FEW = 300


def corner(chance: random.Random, shape: tuple[int, ...], patch: int) -> tuple[int, int]:
    """Draw the top left corner of a patch."""
    return chance.randrange(shape[0] - patch + 1), chance.randrange(shape[1] - patch + 1)


def as_patch(levels: Levels, top: int, left: int, patch: int) -> Tensor:
    """Copy a patch out of levels H×W×C."""
    return torch.from_numpy(levels[top : top + patch, left : left + patch].transpose(2, 0, 1).copy())


def pictures(folder: Path) -> Draw:
    """Decode a whole file for each patch, as a loader does whose memory does not hold the set."""
    paths = pictures_in(folder, deep=True)

    def draw(chance: random.Random, patch: int) -> Tensor:
        pixels = read(chance.choice(paths)).pixels
        top, left = corner(chance, pixels.shape[1:], patch)
        part = pixels[:, top : top + patch, left : left + patch]
        return part.mul(255).round_().to(torch.uint8)

    return draw


def kept(folder: Path) -> Draw:
    """Decode all photos once, and keep them in memory."""
    photos = [next(pieces_of(path, 1 << 20, 0)) for path in pictures_in(folder, deep=True)]

    def draw(chance: random.Random, patch: int) -> Tensor:
        levels = chance.choice(photos)
        return as_patch(levels, *corner(chance, levels.shape, patch), patch)

    return draw


def mapped(folder: Path) -> Draw:
    """Map a file of pieces P×H×W×C and copy the patch alone."""
    arrays = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]
    places = [(array, index) for array in arrays for index in range(len(array))]

    def draw(chance: random.Random, patch: int) -> Tensor:
        array, index = chance.choice(places)
        return as_patch(array[index], *corner(chance, array.shape[1:], patch), patch)

    return draw


def read_rows(folder: Path) -> Draw:
    """Read the patch's rows from a file of pieces, which is opened for each patch and never mapped."""
    places: list[tuple[Path, int, tuple[int, ...]]] = []
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path, mmap_mode="r")
        size = int(np.prod(array.shape[1:]))
        places += [(path, array.offset + index * size, array.shape[1:]) for index in range(len(array))]

    def draw(chance: random.Random, patch: int) -> Tensor:
        path, start, (height, width, channels) = chance.choice(places)
        top, left = corner(chance, (height, width), patch)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            rows = os.pread(descriptor, patch * width * channels, start + top * width * channels)
        finally:
            os.close(descriptor)
        return as_patch(np.frombuffer(rows, np.uint8).reshape(patch, width, channels), 0, left, patch)

    return draw


def lmdb_of(pieces: list[Levels], folder: Path) -> Callable[[], Draw]:
    """Keep each piece as a value of an LMDB file."""
    import lmdb

    size = sum(piece.nbytes + 8192 for piece in pieces)
    with lmdb.open(str(folder), map_size=2 * size) as base, base.begin(write=True) as change:
        for index, piece in enumerate(pieces):
            change.put(str(index).encode(), piece.tobytes())
    shapes = [piece.shape for piece in pieces]

    def opened() -> Draw:
        base = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)

        def draw(chance: random.Random, patch: int) -> Tensor:
            index = chance.randrange(len(shapes))
            with base.begin(buffers=True) as view:
                levels = np.frombuffer(view.get(str(index).encode()), np.uint8).reshape(shapes[index])
                return as_patch(levels, *corner(chance, shapes[index], patch), patch)

        return draw

    return opened


def pieces_of(path: Path, side: int, overlap: int) -> Iterator[Levels]:
    """Yield a photo's pieces as levels."""
    with open_stored(path) as photo:
        levels = photo.rows(0, photo.height)[: photo.channels].mul(255).round_().to(torch.uint8)
    whole = levels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    for box in boxes(*whole.shape[:2], side=side, overlap=overlap):
        yield whole[box.top : box.top + box.height, box.left : box.left + box.width].copy()


def disk(folder: Path) -> int:
    """Return the bytes that a folder's files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def forget(folder: Path) -> None:
    """Ask the system to drop its copies of a folder's files."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def ways_of(photos: Path, work: Path, side: int, overlap: int) -> dict[str, Way]:
    """Write the photos in each way; return how each is read."""
    folders = {name: work / name for name in ("png", "npy", "whole", "lmdb")}
    for folder in folders.values():
        folder.mkdir()
    everything: list[Levels] = []
    for number, path in enumerate(pictures_in(photos, deep=True)):
        pieces = list(pieces_of(path, side, overlap))
        np.save(folders["npy"] / f"{number}.npy", np.stack(pieces))
        np.save(folders["whole"] / f"{number}.npy", np.stack(list(pieces_of(path, 1 << 20, 0))))
        for index, piece in enumerate(pieces):
            pixels = torch.from_numpy(piece).permute(2, 0, 1).float().div_(255)
            write(Picture(pixels=pixels), folders["png"] / f"{number}-{index}.png")
        everything += pieces
    os.sync()
    found: dict[str, Way] = {
        "photos as they are, decoded whole": (lambda: pictures(photos), photos),
        "the same, all decoded before and kept": (lambda: kept(photos), photos),
        f"pieces of {side} as PNG": (lambda: pictures(folders["png"]), folders["png"]),
        "whole photos as .npy, mapped": (lambda: mapped(folders["whole"]), folders["whole"]),
        "whole photos as .npy, rows read": (lambda: read_rows(folders["whole"]), folders["whole"]),
        f"pieces of {side} as .npy, mapped": (lambda: mapped(folders["npy"]), folders["npy"]),
        f"pieces of {side} as .npy, rows read": (lambda: read_rows(folders["npy"]), folders["npy"]),
    }
    try:
        found[f"pieces of {side} in LMDB"] = lmdb_of(everything, folders["lmdb"]), folders["lmdb"]
    except ModuleNotFoundError:
        Console(stderr=True).print("LMDB is not installed and left out")
    return found


def main() -> None:
    """Measure the ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    for name, default in (("patch", 160), ("side", 512), ("overlap", 128), ("rounds", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round of each way")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--work", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        ways = ways_of(options.photos, Path(work), options.side, options.overlap)
        best = dict.fromkeys(ways, 0.0)
        for round_ in range(options.rounds):
            for name, (opened, folder) in ways.items():
                draw = opened()
                if options.cold:
                    forget(folder)
                chance, count, passed = random.Random(round_), 0, 0.0
                started = time.perf_counter()
                # Of a forgotten set few patches are taken, before all of it is known again.
                while passed < options.seconds and not (options.cold and count == _FEW):
                    draw(chance, options.patch)
                    count += 1
                    passed = time.perf_counter() - started
                best[name] = max(best[name], count / passed)
                del draw
        table = Table(
            title=f"patches of {options.patch}x{options.patch}, one process, "
            f"{'first reading' if options.cold else 'files in the memory of the system'}",
            title_justify="left",
        )
        table.add_column("way")
        for column in ("patches/s", "times the first", "disk, MB"):
            table.add_column(column, justify="right")
        first = next(iter(best.values()))
        for name, rate in best.items():
            size = disk(ways[name][1]) / 1e6
            table.add_row(name, f"{rate:,.0f}", f"{rate / first:,.1f}", f"{size:,.1f}")
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
