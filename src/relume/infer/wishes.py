"""How somebody wants a picture enlarged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relume.infer.targets import Target

WHOLE = 0
"""Tile size that means: the whole picture at once."""

FREE_SHARE = 0.6
"""Share of the memory that is free which is used where nothing else is asked for."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How a picture is to be enlarged.

    Attributes:
        target: the size; None takes the model's scale.
        tile: longest side of the tiles in input pixels, `WHOLE` for the whole picture at once; None
            chooses by memory.
        ensemble: whether eight flips and turns are run and averaged.
        faithful: whether the output is corrected until it agrees with the input.
        memory: the most bytes that the process may come to hold; None takes `FREE_SHARE` of what is free.
        strict: whether a tile that is named must keep to the memory too.
        at_work: the most bytes of these that tiles may take; None leaves them all the rest.
        folder: on whose disk pictures lie that memory does not hold; None keeps all in memory.
    """

    target: Target | None = None
    tile: int | None = None
    ensemble: bool = False
    faithful: bool = False
    memory: int | None = None
    strict: bool = False
    at_work: int | None = None
    folder: Path | None = None
