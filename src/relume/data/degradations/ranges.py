"""Ranges that settings give and pictures draw from; one number stands for a range of that alone."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BeforeValidator, Field


def _as_pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(
            f"a range goes from its smaller to its larger number, so [{value[1]:g}, {value[0]:g}]"
        )
    return value


def within(least: float, most: float) -> AfterValidator:
    """Return what refuses a range that reaches beyond these: there it would be a slip, or take for ever."""

    def check(value: tuple[float, float]) -> tuple[float, float]:
        for end in value:
            if end > most:
                raise ValueError(f"{end:g} is too much; at most {most:g} is taken")
            if end < least:
                raise ValueError(f"{end:g} is too little; at least {least:g} is taken")
        return value

    return AfterValidator(check)


one_for_both = BeforeValidator(_as_pair)
"""Lets one number stand for a range of that alone."""
_Pair = (one_for_both, AfterValidator(_rising))
_NonNegative = Annotated[float, Field(ge=0)]
_Positive = Annotated[float, Field(gt=0)]
_Quality = Annotated[int, Field(ge=1, le=100)]
_Share = Annotated[float, Field(ge=0, le=1)]

AnyRange = Annotated[tuple[float, float], *_Pair]
NonNegativeRange = Annotated[tuple[_NonNegative, _NonNegative], *_Pair]
PositiveRange = Annotated[tuple[_Positive, _Positive], *_Pair]
QualityRange = Annotated[tuple[_Quality, _Quality], *_Pair]
"""Of JPEG: 1 (worst) to 100."""
ShareRange = Annotated[tuple[_Share, _Share], *_Pair]
Share = _Share
"""One number 0..1."""
Strength = Annotated[float, Field(ge=0, le=10)]
"""How strong the damage is, up to 10: 0 leaves the picture alone, 1 takes the settings as they stand."""


def uniform(bounds: tuple[float, float], random: torch.Generator) -> float:
    """Draw a number evenly from a range; one draw whatever the range, so that later draws stay the same."""
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=random))


def log_uniform(bounds: tuple[float, float], random: torch.Generator) -> float:
    """Draw a number whose logarithm is even, for ranges (above 0) that span magnitudes."""
    low, high = bounds
    return math.exp(uniform((math.log(low), math.log(high)), random))


def normal(random: torch.Generator) -> float:
    """Draw from the standard normal distribution."""
    return float(torch.randn((), generator=random))
