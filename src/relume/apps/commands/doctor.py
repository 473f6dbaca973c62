"""`relume doctor`: what is installed, what is missing, how to mend it."""

from __future__ import annotations

import importlib
import platform
from importlib import metadata

import typer
from rich.table import Table

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
)
_PACKAGES = {"PIL": "pillow"}


def doctor() -> None:
    """Check this installation; exits with 1 when something that relume needs is broken."""
    import relume

    out.print(
        f"relume {relume.__version__}, Python {platform.python_version()}, {platform.platform()}",
        markup=False,
    )
    table = Table("what", "state", "for", "how to mend it")
    healthy = True
    for library, purpose, extra in _LIBRARIES:
        package = _PACKAGES.get(library, library)
        try:
            importlib.import_module(library)
        except ImportError as error:
            mend = f"pip install 'relume[{extra}]'" if extra else f"pip install --force-reinstall {package}"
            missing = isinstance(error, ModuleNotFoundError) and error.name == library
            state = "not installed" if missing else f"broken: {str(error).splitlines()[0]}"
            table.add_row(
                package,
                f"[yellow]{state}[/]" if extra else f"[red]{state}[/]",
                purpose,
                mend.replace("[", r"\["),
            )
            healthy = healthy and bool(extra)
            continue
        table.add_row(package, f"[green]{metadata.version(package)}[/]", purpose, "")
    if healthy:
        healthy = _pictures(table) and _weights(table)
        _devices(table)
    out.print(table)
    out.print("all is well" if healthy else "something that relume needs is broken; see the last column")
    if not healthy:
        raise typer.Exit(1)


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
                    f"[red]{error}[/]",
                    "pictures",
                    "pip install --force-reinstall 'pyvips[binary]'".replace("[b", r"\[b"),
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
        if variant.weights_path is None:
            continue
        try:
            read_checkpoint(variant.weights_path)
            table.add_row(variant.name, "[green]weights are whole[/]", f"enlarging by {variant.scale}", "")
        except RelumeError as error:
            table.add_row(variant.name, f"[red]{error}[/]", "", "install relume again")
            sound = False
    return sound
