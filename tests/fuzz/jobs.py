"""The pieces of work that `children.py` does in processes of their own."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path

import torch

from relume.core.checkpoints import read_tensors
from relume.core.errors import RelumeError
from relume.core.pictures import SUFFIXES, open_stored, read, read_size, write
from relume.models import zoo
from serving import relume

MEGAPIXELS = 2.0

# What is imported on first use would otherwise be imported in each child anew.
importlib.import_module("relume.apps.cli")
zoo.load("cfsr-x2")


def picture(path: str) -> int:
    """Read a file in all ways, write what was read in all formats, and read that again."""
    source = Path(path)
    try:
        found = read(source, max_megapixels=MEGAPIXELS)
    except RelumeError as error:
        print(error, file=sys.stderr)
        try:
            with open_stored(source, max_megapixels=MEGAPIXELS, folder=source.parent, memory=0):
                raise AssertionError(f"in memory it was refused ({error}), on disk read")
        except RelumeError:
            return 1
    read_size(source)
    assert 0 <= float(found.pixels.min()) <= float(found.pixels.max()) <= 1
    with open_stored(source, max_megapixels=MEGAPIXELS, folder=source.parent, memory=0) as stored:
        again = stored.picture()
        assert torch.equal(again.pixels, found.pixels)
        assert (again.notes, again.exif, again.icc) == (found.notes, found.exif, found.icc)
    if found.height * found.width > 100_000:
        return 0
    for suffix in sorted(set(SUFFIXES) - {".jpeg", ".tiff"}):
        target = source.with_name(f"written{suffix}")
        write(found, target, overwrite=True)
        back = read(target)
        assert back.size == found.size
        if suffix == ".png":
            assert torch.equal(back.pixels, found.pixels) or found.notes
    return 0


def weights(path: str) -> int:
    """Read a file's tensors, which is said, and then convert it by `relume`."""
    source = Path(path)
    with contextlib.suppress(RelumeError):
        read_tensors(source)
        print("tensors were read")
    return relume("convert", path, "-o", str(source.with_name("converted.safetensors")), "--overwrite")


def network(path: str) -> int:
    """Load a network and run it."""
    try:
        loaded, _ = zoo.load(Path(path))
    except RelumeError as error:
        print(error, file=sys.stderr)
        return 1
    with torch.inference_mode():
        loaded(torch.zeros(1, loaded.contract.channels, 8, 8))
    return 0
