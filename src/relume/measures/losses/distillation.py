"""Learning from a teacher's features where widths differ: attention transfer.

Zagoruyko, Komodakis, ICLR 2017, arXiv:1612.03928, eq. 2. The attention map of features a, B N H W, is

    Q(a) = Σ_n a_n² at each place, over its Euclidean norm,

and the loss ½ |Q(student) - Q(teacher)|₂ of each picture, averaged: any two widths N compare, at one size.
Ranges: 0 to √2 / 2, as no part of Q is below 0.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare features by where they are strong.

    Args:
        student: `B N H W`.
        teacher: `B M H W`, any M.

    Raises:
        ValueError: batch or size differ.
    """
    if student.ndim != 4 or teacher.ndim != 4 or student[:, 0].shape != teacher[:, 0].shape:
        raise ValueError(
            f"attention compares B N H W at one size, not {tuple(student.shape)} with {tuple(teacher.shape)}"
        )
    first, second = (F.normalize(a.square().sum(1).flatten(1), dim=1) for a in (student, teacher))
    # Not norm(): its gradient where the two are equal is no number.
    return ((first - second).square().sum(1) + 1e-20).sqrt().mean() / 2
