"""`relume doctor`: what is installed, what is missing, how to mend it."""

from __future__ import annotations

import importlib
import platform
from importlib import metadata

import typer
from rich.table import Table
from rich.text import Text

from relume.apps.console import out

# Library, what it is for, and the extra that brings it ("" where it comes with relume itself).
_LIBRARIES = (
    ("torch", "runs the models", ""),
    ("pyvips", "reads and writes pictures", ""),
    ("safetensors", "reads and writes weights", ""),
    ("PIL", "draws labelled sheets", ""),
    ("accelerate", "training", "train"),
    ("matplotlib", "training curves", "train"),
    ("tensorboard", "training figures in TensorBoard", "tensorboard"),
    ("ray", "batches on several machines", "ray"),
)
_PACKAGES = {"PIL": "pillow"}


def doctor() -> None:
    """Check this installation; exits with 1 when something that relume needs is broken."""
    import relume

    out.print(
        f"relume {relume.__version__}, Python {platform.python_version()}, {platform.platform()}",
        markup=False,
    )
    table = Table("what", "state", "for")
    table.add_column("how to mend it", overflow="fold")  # a command that is cut short mends nothing
    healthy = True
    for library, purpose, extra in _LIBRARIES:
        package = _PACKAGES.get(library, library)
        try:
            importlib.import_module(library)
            state = Text(metadata.version(package), "green")
            mend = ""
        except Exception as error:  # noqa: BLE001 - a broken library may fail in any way; that is what we tell
            missing = isinstance(error, ModuleNotFoundError) and error.name == library
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            state = Text("not installed" if missing else f"broken: {reason}", "yellow" if extra else "red")
            mend = f"pip install 'relume[{extra}]'" if extra else f"pip install --force-reinstall {package}"
            healthy = healthy and bool(extra)
        table.add_row(package, state, purpose, Text(mend))
    if healthy:
        sound = (_pictures(table), _weights(table))
        healthy = all(sound)
        _devices(table)
        _engines(table)
    out.print(table)
    out.print("all is well" if healthy else "something that relume needs is broken; see the last column")
    if not healthy:
        raise typer.Exit(1)


def _engines(table: Table) -> None:
    """Tell which engines can be used; none but PyTorch's own is needed."""
    from relume.core.machine import cache_folder, cache_trouble
    from relume.infer.engines import engines

    for name, kind in engines().items():
        reason = kind.missing()
        state = Text("not installed" if reason else "there", "yellow" if reason else "green")
        table.add_row(f"engine {name}", state, "runs the models, perhaps faster", Text(reason or ""))
    folder = cache_folder()
    trouble = cache_trouble()
    state = Text("cannot be used" if trouble else str(folder), "yellow" if trouble else "green")
    table.add_row("cache folder", state, "what engines prepare", Text(trouble or ""))


def _devices(table: Table) -> None:
    import torch

    table.add_row("CPU", f"[green]{torch.get_num_threads()} threads[/]", "runs the models", "")
    if torch.cuda.is_available():
        table.add_row("GPU", f"[green]{torch.cuda.get_device_name()}[/]", "runs the models, much faster", "")
    else:
        built = torch.version.cuda is not None
        mend = (
            "check the NVIDIA driver (nvidia-smi)"
            if built
            else "install a CUDA build of torch, if you have a GPU"
        )
        table.add_row("GPU", "[yellow]none found[/]", "not needed; faster", mend)


def _pictures(table: Table) -> bool:
    """Write and read back a small picture in each format."""
    import tempfile
    from pathlib import Path

    import torch

    from relume.core.errors import RelumeError
    from relume.core.pictures import SUFFIXES, Picture, read, write

    sound = True
    suffixes = {kind: suffix for suffix, kind in SUFFIXES.items()}
    with tempfile.TemporaryDirectory() as folder:
        for kind, suffix in sorted(suffixes.items()):
            try:
                path = Path(folder) / f"try{suffix}"
                write(Picture(pixels=torch.rand(3, 16, 16)), path)
                read(path)
                table.add_row(kind, "[green]reads and writes[/]", "pictures", "")
            except RelumeError as error:
                table.add_row(
                    kind,
                    Text(str(error), "red"),
                    "pictures",
                    Text("pip install --force-reinstall 'pyvips[binary]'"),
                )
                sound = False
    return sound


def _weights(table: Table) -> bool:
    """Check the shipped weights against their fingerprints."""
    from relume.core.catalogue import variants
    from relume.core.checkpoints import read_checkpoint
    from relume.core.errors import RelumeError

    sound = True
    for variant in variants().values():
        purpose = f"enlarging by {variant.scale}"
        if variant.weights_path is None:
            mend = f"relume train {variant.name} --data FOLDER"
            table.add_row(variant.name, "[yellow]comes without weights[/]", purpose, mend)
            continue
        try:
            read_checkpoint(variant.weights_path)
            table.add_row(variant.name, "[green]weights are whole[/]", purpose, "")
        except RelumeError as error:
            table.add_row(variant.name, Text(str(error), "red"), purpose, "install relume again")
            sound = False
    return sound
