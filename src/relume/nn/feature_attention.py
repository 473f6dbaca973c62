"""Attention that weighs features, by channel or by place, in light super-resolution networks.

Contrast-aware channel attention: Hui et al., ACM Multimedia 2019, arXiv:1909.11856 (IMDN). Enhanced spatial
attention: Liu et al., CVPR 2020 (RFANet), as RFDN (arXiv:2009.11551) and its followers use it.
Shapes: B batch, N width, H W, n narrow width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relume.nn.padding import mirrored_to_least

_FLAT = 1e-12
"""Least variance that counts."""

_LEAST = 15
"""Pixels of a side from which attention by places has a place in its small map."""

_WINDOW, _STEP = 7, 3
"""Of the maxima that make the small map."""


class ContrastAttention(nn.Module):
    """Weighs each channel by its mean plus its standard deviation over the picture.

    Departs from the papers' code: variances below 1e-12 count as that, as the root's slope at zero would be
    endless and one flat channel would end a training.

    Args:
        width: N.
        narrow: n, channels in between.
    """

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, narrow, 1)
        self.expand = nn.Conv2d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)  # B N 1 1
        variance = (x - mean).square().mean((2, 3), keepdim=True)
        described = mean + variance.clamp(min=_FLAT).sqrt()
        return x * torch.sigmoid(self.expand(F.relu(self.squeeze(described))))


def filled_for_places(x: Tensor) -> Tensor:
    """Continue `B C H W` mirrored, below and right, to the 15 pixels that attention by places takes."""
    return mirrored_to_least(x, _LEAST)


class SpatialAttention(nn.Module):
    """Weighs each value by a map that is computed from few channels, much of it at a sixth of the size (ESA).

    The map is enlarged to whatever size the features have, by bilinear, so how far apart its places lie
    depends on the picture's size: a part of a picture gives other values than the whole.
    See `filled_for_places`.

    Args:
        width: N.
        narrow: n.
        shrink: 3×3 convolution of n channels with stride 2 and no padding.
        look: what is done at the small size, n channels to n: a layer, or several in a row.
    """

    def __init__(self, width: int, narrow: int, *, shrink: nn.Module, look: nn.Module) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, narrow, 1)
        self.shrink = shrink
        self.look = look
        self.keep = nn.Conv2d(narrow, narrow, 1)
        self.expand = nn.Conv2d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)  # B n H W
        shrunk = self.shrink(reduced)  # B n H/2 W/2, about
        if torch.compiler.is_exporting():
            around = self._around_in_a_program(shrunk, height=x.shape[2], width=x.shape[3])
        else:
            small = self.look(F.max_pool2d(shrunk, _WINDOW, stride=_STEP))  # B n H/6 W/6, about
            around = F.interpolate(small, x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.expand(around + self.keep(reduced)))

    def _around_in_a_program(self, shrunk: Tensor, *, height: int, width: int) -> Tensor:
        """Compute the same with one place more along each side of the small map, empty before every layer.

        A program of `torch.export` made for sides of a single place would be for these alone.
        """
        rows, columns = ((side - _WINDOW) // _STEP + 1 for side in shrunk.shape[2:])
        small = F.max_pool2d(F.pad(shrunk, (0, _STEP, 0, _STEP)), _WINDOW, stride=_STEP)
        across = torch.arange(small.shape[3], device=small.device) < columns
        down = torch.arange(small.shape[2], device=small.device) < rows
        inside = (down[:, None] & across).to(small.dtype)
        for layer in self.look.modules():
            if not list(layer.children()):
                small = layer(small * inside)
        return _enlarged(_enlarged(small, 2, rows, height), 3, columns, width)


def _enlarged(x: Tensor, dim: int, places: int, length: int) -> Tensor:
    """Enlarge the first `places` of a side of `B n H W` to `length`, by bilinear as `F.interpolate` does."""
    # Numbers computed from sizes go into tensors, as ONNX does not calculate with them otherwise.
    last = torch.full((1,), places - 1, device=x.device)
    ratio = (last + 1) / torch.full((1,), length, device=x.device)
    at = ((torch.arange(length, device=x.device) + 0.5) * ratio - 0.5).clamp(min=0)
    before = at.long()
    share = (at - before).to(x.dtype)
    share = share if dim == 3 else share[:, None]
    after = torch.minimum(before + 1, last)
    return x.index_select(dim, before) * (1 - share) + x.index_select(dim, after) * share


OFFICIAL_NAMES = (
    (r"\.cca\.conv_du\.0\.", ".attend.squeeze."),
    (r"\.cca\.conv_du\.2\.", ".attend.expand."),
    (r"\.esa\.conv1\.", ".attend.reduce."),
    (r"\.esa\.conv2\.", ".attend.shrink."),
    (r"\.esa\.conv_max\.", ".attend.look.0."),
    (r"\.esa\.conv3\.", ".attend.look.2."),
    (r"\.esa\.conv3_\.", ".attend.look.4."),
    (r"\.esa\.conv_f\.", ".attend.keep."),
    (r"\.esa\.conv4\.", ".attend.expand."),
)
"""Names that the authors of IMDN, RFDN and their followers share, and ours for what is called `attend`."""
