"""What the folder of a training tells, whatever state it is in.

A run may still be going, have been killed in the middle of a line, or lack anything but its log;
what is missing or broken becomes a sentence, never an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from relume.core.catalogue import variants
from relume.core.checkpoints import Header, read_header
from relume.core.errors import DataError, RelumeError
from relume.train.observers import LOG, is_figure, is_step, read_log
from relume.train.state import EARLIER, FILE, Progress, read_progress
from relume.train.validation import plain_name

_PICTURE = re.compile(r"(?P<name>.+)-(?P<step>\d{7,12})\.png", re.DOTALL)
_SECONDS_ALIVE = 600


@dataclass(frozen=True)
class Weights:
    """A weights file of a run.

    Attributes:
        path: of the file.
        header: what it says of itself.
        bytes: its size.
    """

    path: Path
    header: Header
    bytes: int


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What is known of a run.

    Attributes:
        folder: where it lies.
        name: the folder's name.
        curves: (step, value) of every logged figure, by name, in the order of steps.
        validation: the same of every figure of validations.
        notices: step and text of what the run had to say.
        pictures: validation pictures by name, with their steps, in order.
        progress: from its state; None where it has saved none.
        weights: its weights files.
        touched: when its log was last written, seconds since 1970; None without a log.
        problems: what is missing or broken, one sentence each.
    """

    folder: Path
    name: str
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    validation: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    notices: list[tuple[int, str]] = field(default_factory=list)
    pictures: dict[str, list[tuple[int, Path]]] = field(default_factory=dict)
    progress: Progress | None = None
    weights: list[Weights] = field(default_factory=list)
    touched: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe; empty where none is known."""
        if self.progress is not None:
            return self.progress.recipe
        return next((dict(each.header.recipe) for each in self.weights if each.header.recipe), {})

    @property
    def plain(self) -> str:
        """What its outputs are compared with, as `plain_name`; "bicubic", as logs say, for unknown models."""
        variant = self.recipe.get("variant")
        known = variants().get(variant) if isinstance(variant, str) else None
        return plain_name(known.scale if known else None)

    @property
    def last_step(self) -> int:
        """The furthest step that anything tells of."""
        logged = [points[-1][0] for points in (*self.curves.values(), *self.validation.values()) if points]
        return max([*logged, self.progress.step if self.progress else 0])

    @property
    def steps(self) -> int | None:
        """How many steps it is to have; None where that is not known."""
        value = self.recipe.get("steps")
        return value if isinstance(value, int) else None

    def ending(self, now: float) -> str:
        """Say in one sentence how the run ended, or where it is."""
        done, of = self.last_step, self.steps
        if self.progress is not None and of is not None and self.progress.step >= of:
            final = [each for each in self.weights if each.path.name != "best.safetensors"]
            if final:
                return f"finished: all {of} steps, weights written"
            return f"all {of} steps done, but the last weights are missing: the same command writes them"
        share = f"step {done} of {of}" if of else f"step {done}, of how many is not known"
        if self.touched is None:
            return f"not finished: {share}"
        when = datetime.fromtimestamp(self.touched, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if now - self.touched < _SECONDS_ALIVE:
            return f"under way or just stopped: {share}; the log was last written {when}"
        saved = self.progress.step if self.progress else 0
        return (
            f"not finished: {share}; the log was last written {when}, the state holds step {saved}, "
            f"and the same command goes on from there"
        )

    def facts(self) -> dict[str, Any]:
        """Return what the state tells beside the recipe."""
        if self.progress is None:
            return {}
        values = asdict(self.progress)
        del values["recipe"]
        return {name: value for name, value in values.items() if value not in (None, {}, [])}


def read_run(folder: Path) -> RunRecord:
    """Read a run's folder.

    Raises:
        DataError: it is no run of `relume train`.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the folder of a run (runs/VARIANT)")
    log = folder / LOG
    if not log.is_file() and not (folder / FILE).is_file():
        inside = sorted(path.parent.name for path in folder.glob(f"*/{LOG}"))
        advice = (
            f"it holds runs, name them: {', '.join(inside[:8])}" if inside else "name the folder of a run"
        )
        raise DataError(f"{folder} is no run of relume train (no {LOG}, no {FILE}); {advice}")
    problems: list[str] = []
    record = RunRecord(
        folder=folder,
        name=folder.resolve().name or str(folder),
        pictures=_pictures(folder),
        progress=_progress(folder, problems),
        weights=_weights(folder, problems),
        touched=log.stat().st_mtime if log.is_file() else None,
        problems=problems,
    )
    _fill_curves(record, _lines(log, problems))
    if not record.validation:
        problems.append("No validation is logged (give --validation SET to relume train).")
    if not record.pictures:
        problems.append("There are no validation pictures.")
    # Where the folder lies is nobody's business who is shown the page.
    problems[:] = [problem.replace(f"{folder}/", "") for problem in problems]
    return record


def _progress(folder: Path, problems: list[str]) -> Progress | None:
    try:
        progress = read_progress(folder)
    except (RelumeError, KeyError, TypeError, OSError) as error:
        problems.append(f"The state cannot be read: {error}")
        return None
    if progress is None:
        problems.append("No state is saved yet, so neither recipe nor the number of steps is known from it.")
    elif not isinstance(cast(Any, progress.recipe), Mapping) or not is_step(progress.step):
        problems.append("The state is damaged: it holds no recipe.")
        return None
    return progress


def _weights(folder: Path, problems: list[str]) -> list[Weights]:
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        if path.name in (FILE, EARLIER) or path.name.startswith("."):
            continue
        try:
            header = read_header(path)
            if header is not None:
                found.append(Weights(path, header, path.stat().st_size))
        except (RelumeError, OSError) as error:
            problems.append(f"Weights cannot be read: {error}")
    if not found:
        problems.append("There are no weights yet.")
    return found


def _pictures(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted((folder / "pictures").glob("*.png")):
        match = _PICTURE.fullmatch(path.name)
        if match and path.is_file():
            found.setdefault(match["name"], []).append((int(match["step"]), path))
    return {name: sorted(series) for name, series in found.items()}


def _lines(log: Path, problems: list[str]) -> list[dict[str, Any]]:
    if not log.is_file():
        problems.append("There is no log.")
        return []
    try:
        lines = read_log(log, problems)
    except RelumeError as error:
        problems.append(f"{error}.")
        return []
    if not lines:
        problems.append("The log holds no figures yet.")
    return lines


def _fill_curves(record: RunRecord, lines: list[dict[str, Any]]) -> None:
    odd = 0
    for line in lines:
        step = line["step"]
        for name, value in line.items():
            if name == "step":
                continue
            if isinstance(value, str):
                record.notices.append((step, value))
            elif name == "validation" and isinstance(value, dict):
                for figure, measured in value.items():
                    odd += not _add(record.validation, figure, step, measured)
            else:
                odd += not _add(record.curves, name, step, value)
    for curves in (record.curves, record.validation):
        for points in curves.values():
            points.sort(key=lambda point: point[0])
    if odd:
        record.problems.append(f"{odd} logged values are no finite numbers and were left out.")


def _add(curves: dict[str, list[tuple[int, float]]], name: str, step: int, value: object) -> bool:
    if not is_figure(value):
        return False
    curves.setdefault(name, []).append((step, float(value)))
    return True


def as_json(value: object) -> str:
    """Return plain values as indented JSON, for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
