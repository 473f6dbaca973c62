"""How large tiles may be, so that a promise of memory is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from relume.core.errors import RelumeError
from relume.core.machine import free_memory, resident_memory
from relume.infer.wishes import FREE_SHARE, Wishes

LARGEST_TILE = 1024
"""Longest tile that is chosen where memory would allow more: beyond it the halo costs little."""

OVERLAP = 32
"""Input pixels in which neighbouring tiles of a model of unbounded reach are blended."""

_SMALLEST_TILE = 16
_MARGIN = 128 << 20
"""Kept back of a memory promise for encoding and what libraries take."""

_DEAREST = 4
"""How many times PyTorch's tensors any engine may take, for what is not worth measuring."""

_TOO_MUCH = 4
"""Times the work of the whole picture from which a user is told what little memory costs."""

_GPU_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A picture on its way through an operator.

    Attributes:
        height: of the input.
        width: of the input.
        halo: input pixels that tiles overlap on each side.
        strip: bytes that a row of tiles takes in its output, for each of its input pixels.
        device: where tiles are run.
    """

    height: int
    width: int
    halo: int
    strip: int
    device: str

    def pixels(self, tile: int) -> int:
        """Return how many input pixels are read for a tile."""
        return min(self.height, tile + 2 * self.halo) * min(self.width, tile + 2 * self.halo)


def room_for(wishes: Wishes) -> int:
    """Return the bytes that may still be taken.

    Raises:
        RelumeError: the program itself holds more than was allowed.
    """
    if wishes.memory is None:
        free = free_memory()
        # Where the system does not tell, what any machine of today has.
        return int(FREE_SHARE * free) - _MARGIN if free is not None else 1 << 30
    held = resident_memory() or 0
    room = wishes.memory - held - _MARGIN
    if room <= 0:
        raise RelumeError(
            f"{_mebibytes(wishes.memory)} are not enough: the program itself holds {_mebibytes(held)}, "
            f"and {_mebibytes(_MARGIN)} are kept for encoding; allow more (--memory)"
        )
    return room


def tile_side(
    frame: Frame, wishes: Wishes, room: int, *, least: float, measured: Callable[[], float | None]
) -> tuple[int, str | None]:
    """Return the side of the tiles that a memory allows, and what it costs where that is much.

    Args:
        frame: what is cut.
        wishes: may name the side; then it is only checked.
        room: bytes that may be taken.
        least: bytes that PyTorch's tensors take for each input pixel of a tile.
        measured: measures the bytes that the engine takes; None where that cannot be.

    Raises:
        RelumeError: memory does not suffice.
    """
    if wishes.at_work is not None:
        room = min(room, wishes.at_work)
    on_cpu = frame.device == "cpu"
    on_gpu = math.inf
    if frame.device.startswith("cuda"):
        on_gpu = _GPU_SHARE * torch.cuda.mem_get_info(frame.device)[0]

    def beyond(tile: int, pixel: float) -> float:
        """Bytes beyond what there is: of the main memory, or of the GPU's for the tile itself."""
        at_work = frame.pixels(tile) * pixel
        strip = min(frame.height, tile) * frame.width * frame.strip
        return at_work + strip - room if on_cpu else max(strip - room, at_work - on_gpu)

    longest = max(frame.height, frame.width)
    tile = min(longest, LARGEST_TILE if wishes.tile is None else wishes.tile or longest)
    pixel = least * (_DEAREST if on_cpu else 1)
    if on_cpu and beyond(tile, pixel) > 0:
        pixel = max(least, measured() or pixel)
    smallest = _SMALLEST_TILE if wishes.tile is None else tile
    while tile > smallest and beyond(tile, pixel) > 0:
        tile = max(smallest, tile * 7 // 8)
    if (missing := beyond(tile, pixel)) > 0:
        raise RelumeError(
            f"memory does not suffice: {frame.width}x{frame.height} in tiles of {tile} pixels needs "
            f"{_mebibytes(missing)} more than there is; allow more (--memory)"
            + (", or leave out --tile" if wishes.tile is not None else "")
        )
    tiles = -(-frame.height // tile) * -(-frame.width // tile)
    work = tiles * frame.pixels(tile) / (frame.height * frame.width)
    if wishes.tile is not None or work <= _TOO_MUCH:
        return tile, None
    return tile, (
        f"so little memory makes tiles of {tile} pixels, which take {work:.0f} times as long; allow more "
        "(--memory)"
    )


def _mebibytes(count: float) -> str:
    return f"{math.ceil(count / (1 << 20))} MiB"
