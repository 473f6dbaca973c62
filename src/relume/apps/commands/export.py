"""`relume export`: a model as a file that other programs run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from relume.apps.console import say, say_note


class Kind(StrEnum):
    """What a model can be exported to."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    NCNN = "ncnn"


def export(
    name: Annotated[str, typer.Argument(help="A model from `relume models`, or a weights file.")],
    to: Annotated[Kind, typer.Option("--to", help="The form.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; default: NAME, here."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="0 (weak) to 1 (strong), for models that have that choice; it is fixed so."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO or ncnn; height and width stay free.

    Input and output are `1 x channels x height x width`, 0..1. The written file is run and compared with
    PyTorch before it counts.
    """
    from relume.apps.face import set_strength, variant_named
    from relume.infer.exporting import export as write
    from relume.models import zoo

    network, header = zoo.load(variant_named(name))
    stem = header.variant or Path(name).stem
    if strength is not None:
        set_strength(network, strength, stem)
    written, difference = write(network, to.value, output or Path(stem), overwrite=overwrite)
    shown = " and ".join(str(path) for path in written)
    checked = "not run, as its engine is not installed"
    if difference is not None:
        checked = f"within {difference:.1e} of PyTorch"
    if to is Kind.OPENVINO:
        say_note(
            "OpenVINO computes in bf16 on CPUs that can, which is up to a few levels of 8 bits off; for "
            'PyTorch\'s pixels compile it with {"INFERENCE_PRECISION_HINT": "f32"}'
        )
    contract = network.contract
    say(f"{name} → {shown}  x{contract.scale}, {contract.channels} channels, {checked}")
