"""Who watches a training: the log file, TensorBoard, and the curve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relume.core.errors import MissingDependencyError, RelumeError
from relume.core.files import reason, whole, write_text

LOG = "log.jsonl"


class JsonLog:
    """Appends one JSON object a line to `log.jsonl`, each with its "step".

    That is losses and the like by name, a validation's figures under "validation", or a text under
    "notice". Lines of steps that a resumed run does again are cut off first, so the file
    always reads as one run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG

    def started(self, step: int, steps: int) -> None:  # noqa: ARG002
        kept = [line for line in read_log(self.path) if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        self._append({"step": step, **values})

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        self._append({"step": step, "validation": dict(values)})

    def noticed(self, step: int, text: str) -> None:
        self._append({"step": step, "notice": text})

    def finished(self, step: int) -> None:
        """Nothing is held open."""

    def _append(self, values: Mapping[str, Any]) -> None:
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise RelumeError(f"{self.path}: cannot be written: {reason(error)}") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log; a last line that a kill has cut short is left out."""
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


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
        figure: which figure of the validations; bicubic's beside it where there is one.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """

    def __init__(self, folder: Path, *, title: str, figure: str = "psnr") -> None:
        try:
            import matplotlib as _  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError("matplotlib", "drawing the training curve", "train") from error
        self._folder = folder
        self._title = title
        self._figure = figure

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
        losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
        name, plain = self._figure, f"{self._figure}_bicubic"
        figures = [(line["step"], line["validation"]) for line in lines if name in line.get("validation", ())]
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
            if plain in figures[0][1]:
                right.axhline(figures[0][1][plain], color="tab:orange", linestyle="--", label="bicubic")
            right.legend(loc="center right")
        right.set(title=f"{name} of the validation set", xlabel="step")
        figure.suptitle(self._title)
        with whole(self._folder / "curve.png") as partial:
            figure.savefig(partial, dpi=110, format="png")
