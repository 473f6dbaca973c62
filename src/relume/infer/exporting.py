"""A model as a file that other programs run, compared with PyTorch before it is left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from relume.core.errors import RelumeError
from relume.core.files import check_target, whole
from relume.infer.engines.base import EngineError, Place
from relume.infer.engines.ncnn import NcnnEngine
from relume.infer.engines.ncnn import convert as convert_to_ncnn
from relume.infer.engines.onnx_file import export as export_to_onnx
from relume.infer.engines.onnx_file import kept
from relume.infer.engines.onnxruntime import OnnxRuntimeEngine
from relume.infer.engines.openvino import OpenVinoEngine
from relume.infer.measuring import check
from relume.nn.network import Network

ENDINGS: dict[str, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "openvino": (".xml", ".bin"),
    "ncnn": (".ncnn.param", ".ncnn.bin"),
}
"""Forms and the files that each one writes, the one to open first."""

_ENGINES: dict[str, type[OnnxRuntimeEngine | OpenVinoEngine | NcnnEngine]] = {
    "onnx": OnnxRuntimeEngine, "openvino": OpenVinoEngine, "ncnn": NcnnEngine,
}  # fmt: skip


def export(
    network: Network, form: str, path: Path, *, overwrite: bool = False
) -> tuple[list[Path], float | None]:
    """Write a model in another form, with free height and width, float32.

    Args:
        network: the model, in evaluation mode.
        form: one of `ENDINGS`.
        path: the first file to write; an ending is added where it has not the form's.
        overwrite: whether older files may be replaced.

    Returns:
        The files, and the largest difference of the form's engine from PyTorch; None where that engine is
        not installed.

    Raises:
        EngineError: the model cannot be exported, or differs from PyTorch.
        OutputExistsError: a file is there.
        RelumeError: a file cannot be written.
    """
    endings = ENDINGS[form]
    others = {ending for named, all_of in ENDINGS.items() if named != form for ending in all_of}
    if not path.name.endswith(endings[0]) and path.name.endswith(tuple(others)):
        raise RelumeError(f"{path} is not named as {form} is ({endings[0]}); choose another name")
    stem = path.name.removesuffix(endings[0])
    targets = [path.with_name(stem + ending) for ending in endings]
    for target in targets:
        check_target(target, overwrite=overwrite)
    _refuse(network, form)
    with tempfile.TemporaryDirectory() as folder:
        made = [Path(folder) / target.name for target in targets]
        _WRITERS[form](network, made)
        difference = _difference(network, form, made)
        for source, target in zip(made, targets, strict=True):
            with whole(target, overwrite=overwrite) as hidden:
                hidden.write_bytes(source.read_bytes())
    return targets, difference


def _refuse(network: Network, form: str) -> None:
    if reason := _ENGINES[form].refuses(network, Place()):
        raise EngineError(f"the model cannot be exported: {reason}")


def _difference(network: Network, form: str, files: list[Path]) -> float | None:
    """Run what was written and compare."""
    kind = _ENGINES[form]
    if kind.missing():
        return None
    return check(kind(network, Place(threads=torch.get_num_threads()), files=files), network)


def _to_onnx(network: Network, paths: list[Path]) -> None:
    export_to_onnx(network, paths[0])


def _to_openvino(network: Network, paths: list[Path]) -> None:
    try:
        import openvino
    except ImportError:
        raise EngineError("this needs the package openvino: pip install 'relume[openvino]'") from None
    # Kept in float32: by itself it would be halved.
    openvino.save_model(openvino.convert_model(kept(network)), paths[0], compress_to_fp16=False)


def _to_ncnn(network: Network, paths: list[Path]) -> None:
    convert_to_ncnn(network, *paths)


_WRITERS: dict[str, Callable[[Network, list[Path]], None]] = {
    "onnx": _to_onnx, "openvino": _to_openvino, "ncnn": _to_ncnn,
}  # fmt: skip
