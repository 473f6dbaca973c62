"""Which photos are taken: by their figures, and no picture twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from relume.core.config import Config
from relume.data.preparation.records import Photo

_COMPARED = 1024
_UNCOMPRESSED = 101


class PreparationConfig(Config):
    """What is taken, and how it is cut.

    Attributes:
        side: of the pieces, pixels.
        overlap: pixels that neighbouring pieces share at least.
        form: "npy": levels as they are, 8 bits, which a training reads fastest; "png": a PNG each.
        least: the shorter side of a photo, pixels.
        quality: least quality of a JPEG file; 0 takes any.
        blockiness: most levels by which JPEG's blocks may stand out; 0 takes any.
        alike: bits of 64 by which the hashes of like photos differ at most; 0 finds only same files.
        sharpness: least variance of the Laplacian of a piece; 0 keeps blurred and flat ones.
        max_megapixels: the largest photo that is decoded.
    """

    side: PositiveInt = 512
    overlap: NonNegativeInt = 128
    form: Literal["npy", "png"] = "npy"
    least: PositiveInt = 256
    quality: Annotated[int, Field(ge=0, le=100)] = 75
    blockiness: NonNegativeFloat = 2.0
    alike: Annotated[int, Field(ge=0, le=16)] = 8
    sharpness: NonNegativeFloat = 0.0
    max_megapixels: Annotated[float, Field(gt=0)] = 500.0


def judge(
    photos: Sequence[Photo], config: PreparationConfig, *, held_back: Sequence[Photo] = ()
) -> dict[str, str]:
    """Return why photos are refused, by source; what is not named is taken.

    Args:
        photos: in the order of their names.
        config: the limits.
        held_back: of test sets; photos that are the same or like one of these are refused.
    """
    reasons = {photo.source: why for photo in photos if (why := _alone(photo, config))}
    # Of like photos the largest stays, then one in colour, then the least compressed, then the first by name.
    best = sorted(
        (photo for photo in photos if photo.source not in reasons),
        key=lambda photo: (
            -photo.height * photo.width,
            -photo.channels,
            -(photo.quality or _UNCOMPRESSED),
            photo.source,
        ),
    )
    same = {photo.sha256: f"is in the set held back, as {photo.source}" for photo in held_back}
    left = []
    for photo in best:
        if photo.sha256 in same:
            reasons[photo.source] = same[photo.sha256]
        else:
            same[photo.sha256] = f"the same file as {photo.source}"
            left.append(photo)
    if config.alike:
        usable = [photo for photo in held_back if photo.likeness]
        reasons |= _like(left, usable, config.alike)
    return reasons


def _alone(photo: Photo, config: PreparationConfig) -> str | None:
    """Say what is wrong with a photo by itself."""
    if photo.problem is not None:
        return photo.problem
    if photo.height * photo.width > config.max_megapixels * 1e6:
        return f"too large: {photo.width}x{photo.height}, more than {config.max_megapixels:g} megapixels"
    if min(photo.height, photo.width) < config.least:
        return f"too small: {photo.width}x{photo.height}, at least {config.least} are due"
    if photo.quality is not None and photo.quality < config.quality:
        return f"too compressed: JPEG quality {photo.quality}, at least {config.quality} is due"
    if config.blockiness and photo.blockiness > config.blockiness:
        return (
            f"too compressed: blocks stand out by {photo.blockiness:.1f} levels, "
            f"at most {config.blockiness:g}"
        )
    return None


def _like(photos: Sequence[Photo], held_back: Sequence[Photo], most: int) -> dict[str, str]:
    """Refuse each photo that is like one held back, or like an earlier one that was taken."""
    everything = [*held_back, *photos]
    neighbours = _neighbours([photo.likeness for photo in everything], most)
    reasons: dict[str, str] = {}
    taken = set(range(len(held_back)))
    for index in range(len(held_back), len(everything)):
        first = min((other for other in neighbours.get(index, ()) if other in taken), default=None)
        if first is None:
            taken.add(index)
            continue
        what = "is like" if first >= len(held_back) else "is in the set held back, like"
        reasons[everything[index].source] = f"{what} {everything[first].source}"
    return reasons


def _neighbours(hashes: Sequence[str], most: int) -> Mapping[int, list[int]]:
    """Return for each hash the earlier ones that differ in at most so many of its 64 bits."""
    if not hashes:
        return {}
    values = torch.tensor([list(bytes.fromhex(value)) for value in hashes])
    bits = values[:, :, None].bitwise_right_shift(torch.arange(8)).bitwise_and(1).flatten(1)
    # With bits as -1 and 1, a product of two hashes is 64 minus twice the bits that differ.
    signs = bits.float() * 2 - 1
    found: dict[int, list[int]] = {}
    for start in range(0, len(hashes), _COMPARED):
        block = signs[start : start + _COMPARED]
        close = block @ signs[: start + len(block)].T >= 64 - 2 * most
        for row, earlier in _pairs(close, start):
            found.setdefault(row, []).append(earlier)
    return found


def _pairs(close: torch.Tensor, start: int) -> Iterable[tuple[int, int]]:
    for row, column in close.nonzero().tolist():
        if column < start + row:
            yield start + row, column
