"""Memory for a tile, asked for before a library is given the tile.

Libraries behind an engine are at their weakest where memory runs out in the middle of their work: ONNX
Runtime and ncnn were seen to end the process, OpenVINO to return as if nothing had happened.
"""

from __future__ import annotations

import mmap

from relume.infer.footprint import bytes_per_pixel
from relume.nn.network import Network

_LIBRARY = 3
"""Most that an engine was seen to take, as a multiple of PyTorch's own tensors."""
_AT_ONCE = 64 << 20
"""Bytes that allocators set aside in one piece, however little is asked of them."""


def ask_for_memory(network: Network, pixels: int) -> None:
    """See whether what a library takes on the CPU for a tile is to be had; nothing is kept.

    Args:
        network: the model.
        pixels: of the tile, input pixels.

    Raises:
        MemoryError: it is not.
    """
    count = _AT_ONCE + int(_LIBRARY * bytes_per_pixel(network) * pixels)
    try:
        mmap.mmap(-1, count).close()
    except OSError as error:
        raise MemoryError(f"{count} bytes for a tile are not to be had") from error
