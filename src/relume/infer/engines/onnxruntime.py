"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from relume.infer.engines.asking import ask_for_memory
from relume.infer.engines.base import Engine, EngineError, Place
from relume.infer.engines.onnx_file import INPUT, kept
from relume.nn.network import Network

_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")


class OnnxRuntimeEngine(Engine):
    """Runs the model's ONNX file by ONNX Runtime.

    Args:
        network: the model.
        place: where to run.
        files: its ONNX file; none takes the one kept in the cache folder.
    """

    name = "onnxruntime"
    package = "onnxruntime"
    devices = ("cpu", "cuda")

    def __init__(self, network: Network, place: Place, *, files: Sequence[Path] = ()) -> None:
        super().__init__(network, place)
        self._network = network
        import onnxruntime as runtime

        path = files[0] if files else kept(network)
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = place.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4  # errors are raised
        provider = "CUDAExecutionProvider" if place.device.startswith("cuda") else "CPUExecutionProvider"
        if provider not in runtime.get_available_providers():
            raise EngineError(f"this ONNX Runtime has no {provider}; use --device cpu")
        try:
            self._session = runtime.InferenceSession(str(path), settings, providers=[provider])
        except Exception as error:  # noqa: BLE001 - its errors share no class
            if not files:
                path.unlink(missing_ok=True)  # damaged, perhaps; the next try makes it anew
            raise EngineError(
                f"ONNX Runtime cannot take the model: {str(error).splitlines()[0][:200]}"
            ) from None

    def __call__(self, low: Tensor) -> Tensor:
        if self.place.device == "cpu":
            ask_for_memory(self._network, low.shape[-2] * low.shape[-1])
        # One picture at a time: the exported graph has a batch of one.
        return torch.cat([self._one(picture[None]) for picture in low])

    def _one(self, picture: Tensor) -> Tensor:
        try:
            return torch.from_numpy(self._session.run(None, {INPUT: picture.contiguous().numpy()})[0])
        except Exception as error:
            if any(words in str(error) for words in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise


ENGINE = OnnxRuntimeEngine
