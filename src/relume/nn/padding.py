"""Making a picture's sides multiples of a number, for networks that halve them, and cutting it back.

Pixels are gathered by their places, so that an exported program does it for all sizes: slices and borders of
computed lengths would fix them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def zeros_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Append zeros below and to the right: `B C H W` to the next sizes that are twice `multiple` or more."""
    for dim in (2, 3):
        side = x.shape[dim]
        places = torch.arange(_above(side, multiple), device=x.device)
        inside = (places < side).to(x.dtype)
        x = x.index_select(dim, places.clamp(max=side - 1)) * (inside if dim == 3 else inside[:, None])
    return x


def mirrored_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Continue the picture mirrored, its border not repeated, below and to the right, however small it is."""
    for dim in (2, 3):
        side = x.shape[dim]
        places = torch.arange(_above(side, multiple), device=x.device)
        # A tensor, as ONNX has no remainder by a computed number.
        period = places.new_full((1,), torch.sym_max(2 * (side - 1), 1))
        places = places % period
        x = x.index_select(dim, torch.minimum(places, (period - places) % period))
    return x


def cut(x: Tensor, like: Tensor) -> Tensor:
    """Return the upper left of `B C H W`, as large as another picture is."""
    for dim in (2, 3):
        x = x.index_select(dim, torch.arange(like.shape[dim], device=x.device))
    return x


def _above(side: int, multiple: int) -> int:
    # At least two of it: features of a single pixel are a case of their own to an exported program.
    return torch.sym_max((side + multiple - 1) // multiple, 2) * multiple
