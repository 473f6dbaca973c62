"""A model as an ONNX file with free height and width, made once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from pathlib import Path

import torch

from relume.core.files import whole
from relume.core.machine import cache_folder
from relume.infer.engines.base import EngineError
from relume.nn.network import Network

OPSET = 18
_FORM = 2
"""Raised when the same model is exported otherwise than before, so that no older file is taken for it."""
INPUT, OUTPUT = "input", "output"


def digest(network: Network) -> str:
    """Return what tells a model with its weights, at the strength that it has, from all others."""
    total = hashlib.sha256(f"{type(network).__qualname__} {network.config!r} {network.steps}".encode())
    if network.contract.strength:
        total.update(f"strength {network.strength}".encode())
    for name, value in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:24]


def kept(network: Network) -> Path:
    """Return the model's ONNX file in the cache folder, made where it is not there yet.

    Raises:
        EngineError: the model cannot be exported.
    """
    path = cache_folder("onnx") / f"{digest(network)}-torch{torch.__version__}-opset{OPSET}-{_FORM}.onnx"
    if not path.is_file():
        export(network, path)
    return path


def export(network: Network, path: Path, *, overwrite: bool = True) -> None:
    """Write a model as ONNX, input and output `1 C height width`, float32 of 0..1.

    Contract and origin go into the file's metadata.

    Raises:
        EngineError: the model cannot be exported, or a package is missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - the exporter needs it
    except ImportError as error:
        raise EngineError(f"exporting needs the package {error.name}: pip install 'relume[onnx]'") from None
    contract = network.contract
    module = network.folded().eval()
    example = torch.rand(1, contract.channels, 24, 20)
    free = torch.export.Dim.DYNAMIC
    # The exporter prints its progress and warns of its own insides.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, (example,), dynamo=True, dynamic_shapes=({2: free, 3: free},), verbose=False,
                input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET,
            )  # fmt: skip
        assert program is not None
        model = program.model_proto
    except Exception as error:  # whatever the exporter's many parts raise
        first = str(error).strip().splitlines()
        raise EngineError(
            f"{type(network).__name__} cannot be exported to ONNX ({type(error).__name__}: "
            f"{first[0][:200] if first else ''}); use --engine torch"
        ) from error
    finally:
        logger.setLevel(level)
    _name_sides(model)
    facts = {
        "producer": "relume",
        "model": type(network).__name__,
        "scale": str(contract.scale),
        "channels": str(contract.channels),
        "colour": "luma" if contract.luma else "gray" if contract.channels == 1 else "RGB",
        "halo": "unbounded" if contract.halo is None else str(contract.halo),
        "config": network.config.model_dump_json(),
    }
    onnx.helper.set_model_props(model, facts)
    with whole(path, overwrite=overwrite) as hidden:
        hidden.write_bytes(model.SerializeToString())


def _name_sides(model: object) -> None:
    """Give the free sides names that a reader understands."""
    graph = model.graph  # type: ignore[attr-defined]
    for value, names in (
        (graph.input[0], ("height", "width")),
        (graph.output[0], ("out_height", "out_width")),
    ):
        sides = value.type.tensor_type.shape.dim
        for side, name in zip(sides[2:], names, strict=True):
            side.dim_param = name
    # What lies between keeps symbols that no longer exist; readers infer them anew.
    del graph.value_info[:]
