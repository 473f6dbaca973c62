"""Enlarging by sub-pixels (Shi et al., CVPR 2016, arXiv:1609.05158)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def respread_subpixels(source: nn.Conv2d, target: nn.Conv2d, *, old: int, new: int) -> bool:
    """Fill the convolution before a pixel shuffle from one made for another scale.

    Each new sub-pixel takes the weights of the old one that lies at its centre,
    so the target starts as the source followed by nearest-neighbour enlarging.

    Args:
        source: convolution to `C·old²` channels.
        target: convolution to `C·new²` channels, otherwise alike.
        old: scale of the source.
        new: scale of the target.

    Returns:
        Whether the two are alike; where they are not, nothing is changed.
    """
    alike = source.weight.shape[1:] == target.weight.shape[1:]
    if not alike or source.out_channels * new**2 != target.out_channels * old**2:
        return False
    nearest = [(2 * index + 1) * old // (2 * new) for index in range(new)]

    def respread(values: Tensor) -> Tensor:
        grid = values.unflatten(0, (-1, old, old))  # C old old …
        return grid[:, nearest][:, :, nearest].flatten(0, 2)  # C·new² …

    assert source.bias is not None
    assert target.bias is not None
    target.weight.copy_(respread(source.weight))
    target.bias.copy_(respread(source.bias))
    return True
