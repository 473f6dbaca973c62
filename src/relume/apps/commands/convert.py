"""`relume convert`: authors' weights into a checkpoint of ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from relume.apps.console import say, say_note


def convert(
    source: Annotated[Path, typer.Argument(help="Authors' weights, .pth or .safetensors.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: the input's name with .safetensors.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of a setting that weights do not show.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
) -> None:
    """Recognise a network by its weights and write it as a checkpoint that says what it is."""
    from relume.apps.settings import parse_settings
    from relume.core.checkpoints import is_safetensors, read_header, write_checkpoint
    from relume.core.errors import CheckpointError, OutputExistsError, RelumeError
    from relume.models.zoo import load_official, told_on_trust
    from relume.nn.network import count_parameters

    changes = parse_settings(settings or [])
    if is_safetensors(source) and read_header(source) is not None:
        raise CheckpointError(f"{source} is a relume checkpoint already; use it as it is: -n {source}")
    target = output or source.parent / f"{source.stem}.safetensors"
    if os.path.isdir(target):  # noqa: PTH112 - Path.is_dir fails on a name too long
        raise OutputExistsError(f"{target} is a folder; name the file to write in it")
    if target.suffix.lower() != ".safetensors":
        raise RelumeError(f"{target} does not end in .safetensors, which is what is written; change -o")
    if os.path.realpath(target) == os.path.realpath(source):
        raise RelumeError(f"{target} is the input itself, which would be lost; name another with -o")
    if os.path.lexists(target) and not overwrite:
        raise OutputExistsError(
            f"{target}: exists already and was kept; use --overwrite or name another with -o"
        )
    network, header = load_official(source, changes)
    write_checkpoint(target, network.state_dict(), header, overwrite=overwrite)
    what = header.variant or f"{header.model}, a variant without a name"
    say(f"{source} → {target}  {what}, {count_parameters(network):,} parameters")
    if trust := told_on_trust(header, source):
        say_note(trust)
