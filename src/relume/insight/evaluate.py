"""Evaluation: run any upscaler over benchmark pairs and tell how well it does, beside bicubic.

Bicubic (MATLAB's, from the same low picture) is measured in the same run: where its figure agrees
with the published one, so does the protocol, and the model's figure can be believed.

Takes any function from a batch to a batch, so it knows no model. Means are the mean of the pictures'
figures (in dB for PSNR), set by set, as tables report them.

Shapes: B batch (1 here), C channels, H W high resolution, h w low resolution.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from relume.core.errors import DataError
from relume.core.files import write_text
from relume.core.machine import versions
from relume.core.tables import csv_text
from relume.data.benchmarks import Pair
from relume.measures.protocols import Protocol

Upscale = Callable[[Tensor], Tensor]
"""B × C × h × w in 0 .. 1 to B × C × H × W; is given CPU tensors, may return any device's."""

Progress = Callable[["Row", int, int | None], None]
"""Called after each picture with its row, how many are done, and how many there are where known."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured on one picture.

    Attributes:
        set_name: its benchmark set.
        name: its name.
        low_size: height and width of the input in pixels.
        high_size: height and width of the target in pixels.
        low_source: whether the input was `given` or `made` from the target.
        scores: the upscaler's figures by metric (`psnr` in dB, `ssim`; of cubes `sam` in degrees).
        bicubic: bicubic's figures by the same metrics.
        seconds: the upscaler's time, with moving the result to the CPU.
        high_sha256: hash of the target's file.
        low_sha256: hash of the input's file where it was given.
    """

    set_name: str
    name: str
    low_size: tuple[int, int]
    high_size: tuple[int, int]
    low_source: Literal["given", "made"]
    scores: Mapping[str, float]
    bicubic: Mapping[str, float]
    seconds: float
    high_sha256: str
    low_sha256: str | None


@dataclass(frozen=True, kw_only=True)
class SetMean:
    """Means over one benchmark set; the fields are as in `Row`."""

    set_name: str
    pictures: int
    scores: Mapping[str, float]
    bicubic: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All rows of one run, and what they were measured under.

    Attributes:
        protocol: the protocol of every figure.
        scale: how many times larger the outputs are.
        rows: one a picture, in the order of the pairs.
    """

    protocol: Protocol
    scale: int
    rows: tuple[Row, ...]

    @property
    def means(self) -> tuple[SetMean, ...]:
        """The means of each set, in the order in which the sets first came."""
        sets: dict[str, list[Row]] = {}
        for row in self.rows:
            sets.setdefault(row.set_name, []).append(row)
        return tuple(
            SetMean(
                set_name=name,
                pictures=len(rows),
                scores=_mean([row.scores for row in rows]),
                bicubic=_mean([row.bicubic for row in rows]),
                seconds=fmean(row.seconds for row in rows),
            )
            for name, rows in sets.items()
        )


def evaluate(
    upscale: Upscale,
    pairs: Iterable[Pair],
    *,
    scale: int,
    protocol: Protocol,
    progress: Progress | None = None,
) -> Evaluation:
    """Enlarge every low picture and compare it with its high picture.

    Runs under `torch.inference_mode`; the caller puts the model in evaluation mode.

    Args:
        upscale: the model, or anything else that enlarges a batch by `scale`.
        pairs: what to measure on, e.g. from `data.benchmarks.find_pairs`; walked once.
        scale: how many times larger the output is than the input.
        protocol: how to compare.
        progress: called after each picture.

    Returns:
        Every picture's figures and bicubic's.

    Raises:
        DataError: a picture is too small to be measured, or there are no pairs.
        ValueError: the output's shape is not the target's.
    """
    total = len(pairs) if isinstance(pairs, Sized) else None
    rows: list[Row] = []
    for pair in pairs:
        rows.append(_measure(upscale, pair, scale, protocol))
        if progress is not None:
            progress(rows[-1], len(rows), total)
    if not rows:
        raise DataError("no pictures to evaluate on")
    return Evaluation(protocol=protocol, scale=scale, rows=tuple(rows))


def write_csv(evaluation: Evaluation, path: Path) -> None:
    """Write one line a picture; the file appears whole or not at all.

    Raises:
        RelumeError: the file cannot be written.
    """
    records = [_record(row) for row in evaluation.rows]
    write_text(path, csv_text(records, list(records[0])))


def write_json(evaluation: Evaluation, path: Path, *, model: Mapping[str, Any]) -> None:
    """Write the whole run: protocol, versions, the model, means and rows; whole or not at all.

    JSON knows no infinity, so figures that are not finite are written as the strings "inf" and "nan",
    which Python's `float` reads back.

    Args:
        evaluation: what to write.
        path: the file; its folder must exist, an older file is replaced.
        model: facts about what was evaluated, as plain JSON values (variant, checkpoint hash, device …).

    Raises:
        RelumeError: the file cannot be written.
        TypeError: `model` holds something that JSON cannot.
    """
    document = {
        "protocol": {"name": evaluation.protocol.name, "description": evaluation.protocol.description},
        "scale": evaluation.scale,
        "model": dict(model),
        "versions": versions(),
        "sets": [
            {
                "set": mean.set_name,
                "pictures": mean.pictures,
                **_figures(mean.scores, mean.bicubic),
                "seconds": mean.seconds,
            }
            for mean in evaluation.means
        ],
        "pictures": [_record(row) for row in evaluation.rows],
    }
    write_text(path, json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _measure(upscale: Upscale, pair: Pair, scale: int, protocol: Protocol) -> Row:
    pair.refuse_smaller(protocol.smallest_side(scale), needed_by=protocol.name)
    with torch.inference_mode():
        start = time.perf_counter()
        # Moving to the CPU waits for the device, so the time is the whole time.
        output = upscale(pair.low[None])[0].cpu()
        seconds = time.perf_counter() - start
        return Row(
            set_name=pair.set_name,
            name=pair.name,
            low_size=(pair.low.shape[-2], pair.low.shape[-1]),
            high_size=(pair.high.shape[-2], pair.high.shape[-1]),
            low_source=pair.low_source,
            scores=protocol.measure(output, pair.high, scale),
            bicubic=protocol.measure(pair.bicubic(), pair.high, scale),
            seconds=seconds,
            high_sha256=pair.high_sha256,
            low_sha256=pair.low_sha256,
        )


def _mean(scores: list[Mapping[str, float]]) -> dict[str, float]:
    return {metric: fmean(each[metric] for each in scores) for metric in scores[0]}


def _figures(scores: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
    return {**scores, **{f"bicubic_{metric}": value for metric, value in baseline.items()}}


def _record(row: Row) -> dict[str, Any]:
    """One row as flat plain values, for both kinds of file."""
    return {
        "set": row.set_name,
        "name": row.name,
        "low_height": row.low_size[0],
        "low_width": row.low_size[1],
        "high_height": row.high_size[0],
        "high_width": row.high_size[1],
        "low_source": row.low_source,
        **_figures(row.scores, row.bicubic),
        "seconds": row.seconds,
        "high_sha256": row.high_sha256,
        "low_sha256": row.low_sha256,
    }


def _finite(value: Any) -> Any:
    """The same nested value with infinities and NaN as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
