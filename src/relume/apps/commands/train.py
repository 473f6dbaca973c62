"""`relume train`: run a variant's recipe, or one written as YAML or Python, on your photos."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TaskID

from relume.apps.console import INTERRUPTED, err, megabytes, out, printable, progress_bar

if TYPE_CHECKING:
    from relume.recipes.base import Recipe


def train(
    variant: Annotated[
        str,
        typer.Argument(
            help="Which model: a variant from `relume models --all`, or a recipe as YAML or Python."
        ),
    ],
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
        typer.Option("--set", help="NAME=VALUE of the recipe, e.g. steps=500 or degradation=bicubic."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="The recipe's size: cpu, gpu, or another that it has, such as promptir's pretrain; default "
            "cpu, or what the YAML says."
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--start", help="Variant or weights file to start from; 'none': at random.")
    ] = None,
    show_recipe: Annotated[
        bool, typer.Option("--show-recipe", help="Print the resolved recipe as YAML and stop.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Take a few steps, print the recipe, what it needs and how long it will take, and leave "
            "nothing behind. What takes too long here is reckoned from a part.",
        ),
    ] = False,
) -> None:
    """Train a model; started again with the same settings, it goes on where it was."""
    from relume.apps.settings import parse_settings
    from relume.core.catalogue import find_variant
    from relume.core.errors import ConfigError, MissingDependencyError, RelumeError

    try:
        from relume.recipes.reading import SUFFIXES, read_recipe, written
        from relume.recipes.runner import Run, find_recipe
        from relume.train.loop import RunStoppedError
        from relume.train.validation import plain_name
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "yaml"):
            raise
        raise MissingDependencyError(error.name, "training", "train") from error

    changes: dict[str, Any] = parse_settings(settings or [])
    options: dict[str, tuple[str, Any]] = {}
    if data:
        options["--data"] = "data.folders", [str(folder) for folder in data]
    if validation:
        options["--validation"] = "validation.folder", str(validation)
    if start:
        options["--start"] = "start", None if start == "none" else start
    for option, (name, value) in options.items():
        parent, _, last = name.rpartition(".")
        whole = changes.get(parent)
        if name in changes or (isinstance(whole, dict) and last in whole):
            raise ConfigError(f"{option} and --set {name} both say the same setting; leave one out")
        changes[name] = value
    where = f"recipe of {variant}"
    if variant.lower().endswith(SUFFIXES):
        recipe, name = read_recipe(Path(variant), budget=budget), Path(variant).stem
    else:
        recipe, name = find_recipe(variant, budget or "cpu"), variant
    recipe = recipe.override(changes, where=where)
    if show_recipe:
        out.print(written(recipe), markup=False, end="")
        return
    if dry_run:
        _rehearse(recipe, written(recipe), where, for_gpus=budget == "gpu")
        return
    folder = run or Path("runs") / name
    with progress_bar() as bar:
        plain = plain_name(find_variant(recipe.variant).scale)
        with _saying(where):
            prepared = Run(recipe, folder, command=_command(), observers=[_Console(bar, name, plain)])
        if prepared.done == recipe.steps and prepared.weights_path.exists():
            raise RelumeError(
                f"{folder} holds this run, finished ({recipe.steps} steps); choose another --run folder"
            )
        main = prepared.loop.accelerator.is_main_process
        if prepared.done and main:
            err.print(f"{folder} holds this run; going on after step {prepared.done} of {recipe.steps}")
        elif recipe.start and main:
            err.print(f"starting from {recipe.start}: {prepared.taken_over:.0%} of the layers' weights fit")
        if recipe.data.held_out and main:
            use = "" if recipe.validation.folder else ", and validated on"
            err.print(f"the lowest {recipe.data.held_out:.0%} of each picture's rows are held out{use}")
        try:
            weights = prepared.train()
        except RunStoppedError as stopped:
            if main:
                err.print(str(stopped), markup=False)
            raise typer.Exit(INTERRUPTED) from None
    if main:
        out.print(f"weights: {weights}    measure them: relume evaluate {weights} --data SET", markup=False)


@contextmanager
def _saying(where: str) -> Iterator[None]:
    """Put before the message which recipe a setting that cannot be used is of."""
    from relume.core.errors import CheckpointError, ConfigError, UnknownNameError

    try:
        yield
    except (CheckpointError, ConfigError, UnknownNameError) as error:
        raise error.of(where) from error


def _rehearse(recipe: Recipe, text: str, where: str, *, for_gpus: bool) -> None:
    """Print a recipe and what it needs, then what shows over a few real steps in a folder that goes again.

    Args:
        recipe: the recipe.
        text: the same as YAML.
        where: which recipe it is, for messages.
        for_gpus: whether the budget asked for is one for GPUs.
    """
    from relume.nn.network import count_parameters
    from relume.recipes.runner import Run
    from relume.train.demand import memory_left, trained_parameters

    with tempfile.TemporaryDirectory() as place, progress_bar() as bar:
        task = bar.add_task("", total=None)

        def tell(what: str, done: int, of: int | None) -> None:
            bar.update(task, description=what, completed=done, total=of)
            if done == 0 and not err.is_terminal:
                err.print(f"{what} …")

        tell("looking at the photos, trying the losses on two patches", 0, None)
        with _saying(where):
            prepared = Run(recipe, Path(place) / "run", command="", only_asked=True)
        loop, network, patch = prepared.loop, prepared.network, recipe.data.patch
        device = loop.accelerator.device
        left = memory_left(device)
        main, world = loop.accelerator.is_main_process, loop.accelerator.num_processes
        each = recipe.data.batch // world // recipe.accumulate
        processes = f"{world} process{'es' if world > 1 else ''} with {recipe.accumulate} x {each} each"
        if main:
            out.print(text, markup=False)
            rows = {
                "parameters": f"{count_parameters(network):,}, {trained_parameters(network):,} trained",
                "multiply-accumulates": f"{prepared.demand.macs / 1e9:.3f} G for a patch of {patch}x{patch}",
                "batch": f"{recipe.data.batch} patches: {processes}",
                "memory": f"{megabytes(prepared.memory)} estimated beside what is held now, "
                f"{megabytes(left)} free, on {device.type}",
            }
            _print_rows(rows)
        rehearsal = None if prepared.lack else prepared.rehearse(tell=tell)
        loop.part()
    if not main:
        return
    if rehearsal is None:
        _print_rows({"time": f"cannot be taken on this machine: {prepared.lack}"})
        return
    timing = rehearsal.timing
    how, held = f"median of {timing.steps}", f"{megabytes(timing.memory)} was the most of a process"
    if not timing.whole:
        of = "" if timing.side == patch else f" of {timing.side}x{timing.side}"
        how, held = f"{how}, reckoned from {timing.patches} patches{of}", "not measured with a whole batch"
    if for_gpus and device.type == "cpu":
        how = f"{how}; on the CPU of this machine, while the budget is meant for a GPU"
    rows = {
        "memory in use": held,
        "time": f"{timing.seconds:.4g} s a step ({how})",
        "waiting for data": "not measured" if timing.side < patch else f"{timing.data_share:.1%} of the time",
    }
    if rehearsal.validation_seconds is not None:
        part = "" if rehearsal.validated else ", reckoned from a part of a picture"
        rows["a validation"] = f"{rehearsal.validation_seconds:.3g} s{part}"
    rows["the whole run"] = f"{timedelta(seconds=round(rehearsal.whole_seconds))} for {recipe.steps:,} steps"
    _print_rows(rows)


def _print_rows(rows: Mapping[str, str]) -> None:
    for name, value in rows.items():
        out.print(f"{name:<22}{value}", markup=False)


def _command() -> str:
    """The command line, for the card: without the run's folder, and of others the last two parts.

    Where a run lay is of no use to others, and folders may be private.
    """
    parts = []
    words = iter(sys.argv[1:])
    for part in words:
        if part == "--run":
            next(words, None)
        if part == "--run" or part.startswith("--run="):
            continue
        option, equals, value = part.rpartition("=")
        path = Path(value)
        is_place = path.is_absolute() or ".." in path.parts
        parts.append(f"{option}{equals}{'/'.join(path.parts[-2:])}" if is_place else part)
    return shlex.join(["relume", *parts])


class _Console:
    """Shows a bar with the newest figures, and a line for each validation."""

    def __init__(self, bar: Progress, name: str, plain: str) -> None:
        self._bar = bar
        self._name = name
        self._plain = plain
        self._task: TaskID | None = None
        self._steps = 0

    def started(self, step: int, steps: int) -> None:
        self._steps = steps
        if self._task is None:
            self._task = self._bar.add_task(self._name, total=steps)
        self._bar.update(self._task, completed=step)

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        assert self._task is not None
        text = (
            f"loss {values['loss']:.5f}, {values['seconds_per_step']:.3f} s/step, "
            f"{values['data_share']:.0%} waiting for data"
        )
        self._bar.update(self._task, completed=step, description=f"{self._name}  {text}")
        if not err.is_terminal:
            left = timedelta(seconds=round((self._steps - step) * values["seconds_per_step"]))
            err.print(f"step {step} of {self._steps}: {text}, {left} left")

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        plain = {name: values[f"{name}_bicubic"] for name in values if f"{name}_bicubic" in values}
        figures = [
            f"{name} {values[name]:.4f}" + (f" ({self._plain} {plain[name]:.4f})" if name in plain else "")
            for name in values
            if not name.endswith("_bicubic")
        ]
        err.print(f"step {step}: validation {', '.join(figures)}")

    def noticed(self, step: int, text: str) -> None:
        err.print(f"step {step}: {printable(text)}", markup=False)

    def finished(self, step: int) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=step)
