"""Who watches a training: the log file, TensorBoard, and the curve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from relume.core.errors import MissingDependencyError, RelumeError
from relume.core.files import reason, whole, write_text
from relume.train.validation import BASELINE

LOG = "log.jsonl"
CUT_SHORT = "The last line of the log was cut short."
_DAMAGED = f"damaged-{LOG}"


class JsonLog:
    """Appends one JSON object a line to `log.jsonl`, each with its "step".

    That is losses and the like by name, a validation's figures under "validation", or a text under
    "notice". Lines of steps that a resumed run does again are cut off first, so the file
    always reads as one run. A log that is damaged is kept beside it, as `damaged-log.jsonl`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG

    def started(self, step: int, steps: int) -> None:  # noqa: ARG002
        problems: list[str] = []
        kept = [line for line in read_log(self.path, problems) if line["step"] <= step]
        problems = [problem for problem in problems if problem != CUT_SHORT]  # as any kill may leave it
        if problems:
            self._keep()
            kept.append({"step": step, "notice": f"{' '.join(problems)} It was kept as {_DAMAGED}."})
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        self._append({"step": step, **values})

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        self._append({"step": step, "validation": dict(values)})

    def noticed(self, step: int, text: str) -> None:
        self._append({"step": step, "notice": text})

    def finished(self, step: int) -> None:
        """Nothing is held open."""

    def _keep(self) -> None:
        try:
            self.path.replace(self.path.with_name(_DAMAGED))
        except OSError as error:
            raise RelumeError(f"{self.path}: cannot be renamed: {reason(error)}") from None

    def _append(self, values: Mapping[str, Any]) -> None:
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise RelumeError(f"{self.path}: cannot be written: {reason(error)}") from error


def read_log(path: Path, problems: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the lines of a log that name their step, up to the first that is damaged.

    Args:
        path: of the log; one that is missing has no lines.
        problems: what was left out is added, a sentence each.

    Raises:
        RelumeError: the file cannot be read.
    """
    said = [] if problems is None else problems
    if not path.exists():
        return []
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        said.append("The log is damaged: it is no text.")
        return []
    except OSError as error:
        raise RelumeError(f"{path} cannot be read: {reason(error)}") from None
    read: list[Any] = []
    nested = False
    for text in texts:
        try:
            read.append(json.loads(text))
        except ValueError:
            break
        except RecursionError:
            nested = True  # as no kill leaves a line
            break
    left = sum(bool(text.strip()) for text in texts[len(read) :])
    if left:
        said.append(
            CUT_SHORT
            if left == 1 and not nested
            else f"The log is damaged in line {len(read) + 1}; the {left} lines from there on were left out."
        )
    lines = [line for line in read if isinstance(line, dict) and is_step(line.get("step"))]
    if len(lines) < len(read):
        said.append(f"{len(read) - len(lines)} lines of the log name no step and were left out.")
    return lines


def is_step(value: object) -> bool:
    """Tell whether a value that was read can be the number of a step."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12


def is_figure(value: object) -> TypeGuard[int | float]:
    """Tell whether a value that was read is a finite number, so that it can be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


class TensorBoardLog:
    """Writes the same figures for TensorBoard, where it is installed."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder / "tensorboard"
        self._kind = SummaryWriter
        self._writer: Any = None

    def started(self, step: int, steps: int) -> None:
        if self._writer is not None:
            self.finished(steps)
        self._writer = self._kind(str(self._folder), purge_step=step + 1)

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"validation/{name}", value, step)

    def noticed(self, step: int, text: str) -> None:
        self._writer.add_text("notices", text, step)

    def finished(self, step: int) -> None:  # noqa: ARG002
        self._writer.close()


def tensorboard_log(folder: Path) -> TensorBoardLog | None:
    """Return an observer for TensorBoard, or None where it is not installed."""
    try:
        return TensorBoardLog(folder)
    except ImportError:
        return None


class Curve:
    """Draws loss and validation over the steps into `curve.png`, anew after each validation.

    Args:
        folder: the run's folder, whose log is drawn.
        title: above both drawings.
        figure: which figure of the validations; beside it that of what was enlarged plainly, if any.
        plain: what that is called, as `plain_name` says.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """

    def __init__(self, folder: Path, *, title: str, figure: str = "psnr", plain: str = "bicubic") -> None:
        try:
            import matplotlib as _  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError("matplotlib", "drawing the training curve", "train") from error
        self._folder = folder
        self._title = title
        self._figure = figure
        self._plain = plain

    def started(self, step: int, steps: int) -> None:
        """Nothing to draw yet."""

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Drawn with the next validation."""

    def validated(self, step: int, values: Mapping[str, float]) -> None:  # noqa: ARG002
        self._draw()

    def noticed(self, step: int, text: str) -> None:
        """Notices are not drawn."""

    def finished(self, step: int) -> None:
        if step:
            self._draw()

    def _draw(self) -> None:
        from matplotlib.figure import Figure

        lines = read_log(self._folder / LOG)
        losses = [(line["step"], line["loss"]) for line in lines if is_figure(line.get("loss"))]
        name, plain = self._figure, f"{self._figure}{BASELINE}"
        measured = [(line["step"], line.get("validation")) for line in lines]
        figures = [
            (step, values)
            for step, values in measured
            if isinstance(values, dict) and is_figure(values.get(name))
        ]
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        if losses:
            left.plot(*zip(*losses, strict=True), color="tab:gray", linewidth=1)
        # Some losses are decibels or differences, which may be below 0.
        scale = "log" if all(loss > 0 for _, loss in losses) else "linear"
        left.set(title="loss", xlabel="step", yscale=scale)
        if figures:
            steps = [step for step, _ in figures]
            right.plot(steps, [values[name] for _, values in figures], marker=".", label="network")
            if is_figure(figures[0][1].get(plain)):
                right.axhline(figures[0][1][plain], color="tab:orange", linestyle="--", label=self._plain)
            right.legend(loc="center right")
        right.set(title=f"{name} of the validation set", xlabel="step")
        figure.suptitle(self._title)
        with whole(self._folder / "curve.png") as partial:
            figure.savefig(partial, dpi=110, format="png")
