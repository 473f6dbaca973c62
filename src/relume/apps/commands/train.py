"""`relume train`: run a variant's recipe on your photos."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, TaskID

from relume.apps.console import err, out, progress_bar


def train(
    variant: Annotated[str, typer.Argument(help="Which model: a variant from `relume methods`.")],
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Folder of photos, searched to any depth; may be repeated."),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option("--validation", help="A benchmark set to measure on during the run.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run's folder; default runs/VARIANT. A run in it goes on."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of the recipe, e.g. steps=500 or data.batch=8."),
    ] = None,
    budget: Annotated[str, typer.Option(help="The recipe's size: cpu or gpu.")] = "cpu",
    start: Annotated[
        str | None, typer.Option("--start", help="Variant or weights file to start from; 'none': at random.")
    ] = None,
    show_recipe: Annotated[
        bool, typer.Option("--show-recipe", help="Print the resolved recipe as JSON and stop.")
    ] = False,
) -> None:
    """Train a model; started again with the same settings, it goes on where it was."""
    from relume.apps.settings import parse_settings
    from relume.core.errors import MissingDependencyError, RelumeError

    try:
        from relume.recipes.runner import Run, find_recipe
    except ModuleNotFoundError as error:
        if error.name != "accelerate":
            raise
        raise MissingDependencyError("accelerate", "training", "train") from error

    changes: dict[str, Any] = parse_settings(settings or [])
    if data:
        changes["data.folders"] = [str(folder) for folder in data]
    if validation:
        changes["validation.folder"] = str(validation)
    if start:
        changes["start"] = None if start == "none" else start
    recipe = find_recipe(variant, budget).override(changes, where=f"recipe of {variant}")
    if show_recipe:
        out.print_json(recipe.model_dump_json())
        return
    folder = run or Path("runs") / variant
    with progress_bar() as bar:
        prepared = Run(recipe, folder, command=_command(), observers=[_Console(bar, variant)])
        if prepared.done == recipe.steps and prepared.weights_path.exists():
            raise RelumeError(
                f"{folder} holds this run, finished ({recipe.steps} steps); choose another --run folder"
            )
        main = prepared.loop.accelerator.is_main_process
        if prepared.done and main:
            err.print(f"{folder} holds this run; going on after step {prepared.done} of {recipe.steps}")
        elif recipe.start and main:
            err.print(f"starting from {recipe.start}: {prepared.taken_over:.0%} of the layers' weights fit")
        weights = prepared.train()
    if main:
        out.print(f"weights: {weights}    measure them: relume evaluate {weights} --data SET", markup=False)


def _command() -> str:
    """The command line, for the card: the last two parts of folders, as they may be private."""
    parts = []
    for part in sys.argv[1:]:
        option, equals, value = part.rpartition("=")
        path = Path(value)
        is_place = path.is_absolute() or ".." in path.parts
        parts.append(f"{option}{equals}{'/'.join(path.parts[-2:])}" if is_place else part)
    return shlex.join(["relume", *parts])


class _Console:
    """Shows a bar with the newest figures, and a line for each validation."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar = bar
        self._name = name
        self._task: TaskID | None = None

    def started(self, step: int, steps: int) -> None:
        self._task = self._bar.add_task(self._name, total=steps, completed=step)

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        assert self._task is not None
        text = f"{self._name}  loss {values['loss']:.5f}  {values['seconds_per_step']:.2f} s/step"
        self._bar.update(self._task, completed=step, description=text)
        if not err.is_terminal:
            err.print(f"step {step}: loss {values['loss']:.5f}, {values['seconds_per_step']:.3f} s/step")

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        gain = values["psnr"] - values["psnr_bicubic"]
        err.print(
            f"step {step}: validation {values['psnr']:.3f} dB, SSIM {values['ssim']:.4f} "
            f"(bicubic {values['psnr_bicubic']:.3f} dB, gain {gain:+.3f})"
        )

    def finished(self, step: int) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=step)
