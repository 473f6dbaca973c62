"""`relume convert`: authors' weights into a checkpoint of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relume.apps.console import out


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
    from relume.core.checkpoints import write_checkpoint
    from relume.core.errors import OutputExistsError
    from relume.models.zoo import load_official
    from relume.nn.network import count_parameters

    target = output or source.with_suffix(".safetensors")
    if target.exists() and not overwrite:
        raise OutputExistsError(
            f"{target}: exists already and was kept; use --overwrite or name another with -o"
        )
    network, header = load_official(source, parse_settings(settings or []))
    write_checkpoint(target, network.state_dict(), header, overwrite=overwrite)
    what = header.variant or f"{header.model}, a variant without a name"
    out.print(f"{source} → {target}  {what}, {count_parameters(network):,} parameters", markup=False)
