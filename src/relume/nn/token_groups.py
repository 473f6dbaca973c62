"""Attention in groups of tokens that are alike, wherever in the picture they lie.

Liu, Liu, Yue, Ren, Guo, CVPR 2025, arXiv:2503.06896 (CATANet), sections 3.2 and 3.3. Tokens are sorted by the
centre that each is most like, and cut into groups of one size; a group looks at itself and the next one. All
tokens look at the centres, too. Centres move while training and stand still in use.

Shapes: B batch, N tokens, C their numbers, M centres, A heads, D numbers of a head, T tokens of a group.

What follows the last token continues mirrored, its border repeated, however few tokens there are; the
authors' code needs more than a group and half of one. Ties in the sorting, which are everywhere, keep the
picture's order; in the authors' code they come out by chance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.nn.pixelwise import pixelwise


def projected(x: Tensor, query: nn.Linear, key: nn.Linear, value: nn.Linear, *, heads: int) -> Tensor:
    """Return queries, keys and values of tokens, `… A 3 D`, in one product.

    Queries and keys, where they are shorter than values, are filled up by zeros, which changes no likeness:
    the fused kernels for CPUs need one length of all three.

    Raises:
        ValueError: queries are longer than values.
    """
    lengths = [layer.out_features // heads for layer in (query, key, value)]
    if lengths[0] > lengths[2]:
        raise ValueError(f"queries of {lengths[0]} numbers a head are longer than values of {lengths[2]}")
    weights = [
        F.pad(layer.weight.unflatten(0, (heads, -1)), (0, 0, 0, lengths[2] - length))
        for layer, length in zip((query, key, value), lengths, strict=True)
    ]
    rows = torch.stack(weights, 1)  # A 3 D C
    return pixelwise(x, rows.flatten(0, 2)).unflatten(-1, rows.shape[:3])


def sorted_by_centre(tokens: Tensor, centres: Tensor) -> Tensor:
    """Return an order of tokens `B N C`, `B N`: by the centre that each is most like, then as they were."""
    return _nearest(tokens, F.normalize(centres, dim=-1)).argsort(dim=-1, stable=True)


def moved(tokens: Tensor, centres: Tensor) -> Tensor:
    """Return each centre's mean direction over the tokens that are most like it; `M C`, each of length 1.

    Centres without tokens stay. One step of spherical k-means over the whole batch.
    """
    tokens, centres = F.normalize(tokens, dim=-1).flatten(0, 1), F.normalize(centres, dim=-1)
    nearest = _nearest(tokens, centres)
    sums = torch.zeros_like(centres, dtype=tokens.dtype).index_add(0, nearest, tokens)
    filled = torch.zeros(len(centres), dtype=torch.bool, device=tokens.device).index_fill(0, nearest, True)
    return torch.where(filled[:, None], F.normalize(sums, dim=-1), centres)


def means_of_runs(tokens: Tensor, count: int) -> Tensor:
    """Return the means of as many runs of tokens as centres are wanted, over the whole batch; `M C`."""
    number = tokens.shape[1]
    # The authors' code appends a whole run's share where the number divides.
    places = _mirrored(number, (number // count + 1) * count, tokens.device)
    return tokens.index_select(1, places).unflatten(1, (count, -1)).mean((0, 2))


def grouped_attention(
    tokens: Tensor, order: Tensor, centres: tuple[Tensor, Tensor], *, size: int, scale: float
) -> Tensor:
    """Return what each token sees in its group and the next, plus what it sees in the centres.

    Args:
        tokens: queries, keys and values, `B N A 3 D`.
        order: of the tokens, `B N`.
        centres: keys and values of the centres, `A M D`.
        size: T, or all tokens where they are fewer.
        scale: factor on the likeness.

    Returns:
        `B N A D`, in the order that the tokens had.
    """
    batch, number, heads, _, length = tokens.shape
    size = min(number, size)
    groups = (number + size - 1) // size
    places = _mirrored(number, (groups + 1) * size, tokens.device)
    in_order = _rows(tokens.flatten(2), order.index_select(1, places)).unflatten(2, (heads, 3, length))
    query = in_order[:, : groups * size, :, 0]  # B GT A D
    pairs = in_order[..., 1:, :].unfold(1, 2 * size, size)  # B G A 2 D 2T
    key, value = pairs.flatten(0, 1).permute(2, 0, 1, 4, 3).unbind(0)  # BG A 2T D
    near = F.scaled_dot_product_attention(
        query.unflatten(1, (groups, size)).flatten(0, 1).transpose(1, 2), key, value, scale=scale
    )  # BG A T D
    near = near.transpose(1, 2).unflatten(0, (batch, groups)).flatten(1, 2)
    keys, values = (part.expand(batch, -1, -1, -1) for part in centres)
    far = F.scaled_dot_product_attention(query.transpose(1, 2), keys, values, scale=scale)  # B A GT D
    mixed = (near + far.transpose(1, 2))[:, :number]
    back = torch.empty_like(order).scatter(
        1, order, torch.arange(number, device=order.device).expand_as(order)
    )
    return _rows(mixed.flatten(2), back).unflatten(2, (heads, length))


def _nearest(tokens: Tensor, centres: Tensor) -> Tensor:
    """Return which centre, of length 1, each token is most like; the tokens' own length does not matter."""
    return (tokens @ centres.to(tokens.dtype).T).argmax(-1)


def _rows(x: Tensor, order: Tensor) -> Tensor:
    """Return the rows of `B N F` that `B K` names, `B K F`."""
    if len(x) == 1:
        return x.index_select(1, order[0])
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))


def _mirrored(number: int, length: int, device: torch.device) -> Tensor:
    """Return which of some tokens stand at the places of a longer row that continues them mirrored."""
    places = torch.arange(length, device=device) % (2 * number)
    return torch.minimum(places, 2 * number - 1 - places)
