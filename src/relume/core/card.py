"""The card of a published system: what it is and what its paper claims.

What we measured ourselves is not typed into cards: it lies in the header of the
weights that were measured (`core.checkpoints`) and is shown beside the claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Task(StrEnum):
    """The job a system does; the value is the name of its room in `models/`."""

    SUPER_RESOLUTION = "super_resolution"
    RESTORATION = "restoration"
    FACES = "faces"
    INPAINTING = "inpainting"
    VIDEO = "video"
    GENERATION = "generation"
    BACKBONES = "backbones"
    DENSE = "dense"
    GRAPHS = "graphs"
    LANGUAGE = "language"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One figure of the paper's tables.

    Attributes:
        variant: the variant of ours that the figure belongs to.
        dataset: the test set, by its usual name.
        metric: "psnr" (dB) or "ssim" (0..1), or another named measure.
        value: the figure as printed.
        protocol: how it is measured, a protocol of `relume.measures`.
    """

    variant: str
    dataset: str
    metric: str
    value: float
    protocol: str = "sr-y"


def claims_of(
    figures: Mapping[str, Sequence[tuple[float | None, float | None]]], sets: Sequence[str]
) -> tuple[Claim, ...]:
    """Return the claims of a table.

    Args:
        figures: by variant, PSNR and SSIM on each set; None for what is not known.
        sets: the sets' names, in that order.
    """
    return tuple(
        Claim(variant=variant, dataset=dataset, metric=metric, value=value)
        for variant, pairs in figures.items()
        for dataset, pair in zip(sets, pairs, strict=True)
        for metric, value in zip(("psnr", "ssim"), pair, strict=True)
        if value is not None
    )


@dataclass(frozen=True, kw_only=True)
class Card:
    """Identity and claims of one published system.

    Attributes:
        name: the system's short name, which is also its file's name.
        title: the paper's full title.
        summary: two or three sentences for somebody who does not know it.
        when: when to choose it, and when rather another.
        venue: where it was published, with the year.
        arxiv: arXiv number, if any.
        code: where the authors' code is or, where they published none, the code that was read.
        task: the job it does.
        claims: figures of the paper's tables.
        use: how it is switched on, where naming a variant does not: a command or two.
    """

    name: str
    title: str
    summary: str
    when: str
    venue: str
    task: Task
    arxiv: str | None = None
    code: str | None = None
    claims: tuple[Claim, ...] = ()
    use: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain values."""
        return asdict(self)
