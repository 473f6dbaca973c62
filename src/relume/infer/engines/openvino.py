"""OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from relume.core.machine import cache_folder
from relume.core.signal_stack import own_signal_stack
from relume.infer.engines.asking import ask_for_memory
from relume.infer.engines.base import Engine, EngineError, Place
from relume.infer.engines.onnx_file import kept
from relume.nn.network import Network

_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_UNTOUCHED = 0x7FC0DEAD
"""Bits of a float32 that no arithmetic yields: a NaN with a mark."""


class OpenVinoEngine(Engine):
    """Runs the model's ONNX file by OpenVINO; what it compiles is kept in the cache folder.

    Args:
        network: the model.
        place: where to run.
        files: its ONNX file, or OpenVINO's own two; none takes the one kept in the cache folder.
    """

    name = "openvino"
    package = "openvino"
    devices = ("cpu", "gpu")
    precisions = ("fp32", "bf16", "fp16")

    @classmethod
    def refuses(cls, network: Network, place: Place) -> str | None:
        """As any engine; of fp16 its CPU plugin makes bf16 or fp32."""
        if place.precision == "fp16" and place.device == "cpu":
            return "fp16 is for GPUs; take bf16 or fp32 on a CPU"
        return super().refuses(network, place)

    def __init__(self, network: Network, place: Place, *, files: Sequence[Path] = ()) -> None:
        super().__init__(network, place)
        import openvino

        self._network = network
        path = files[0] if files else kept(network)
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[place.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "CACHE_DIR": str(cache_folder("openvino")),
        }
        if place.device == "cpu":
            settings["INFERENCE_NUM_THREADS"] = str(place.threads)
        try:
            core = openvino.Core()
            # Models that are compiled one after the other are not released in the opposite order.
            with own_signal_stack():
                compiled = core.compile_model(str(path), place.device.upper(), settings)
        except RuntimeError as error:
            if not files:
                path.unlink(missing_ok=True)  # damaged, perhaps; the next try makes it anew
            first = next((line for line in str(error).splitlines() if line.strip()), "")
            raise EngineError(f"OpenVINO cannot take the model: {first[:200]}") from None
        self._request, self._tensor = compiled.create_infer_request(), openvino.Tensor

    def __call__(self, low: Tensor) -> Tensor:
        batch, channels, height, width = low.shape
        ask_for_memory(self._network, height * width)
        output = torch.empty(batch, channels, height * self.scale, width * self.scale)
        for picture, part in zip(low.split(1), output.split(1), strict=True):
            # Where memory runs out OpenVINO returns as if nothing had happened, its output as it was before.
            marks = part[..., -1, :].view(torch.int32)
            marks.fill_(_UNTOUCHED)
            self._request.set_output_tensor(0, self._tensor(part.numpy(), shared_memory=True))
            self._request.infer([picture.contiguous().numpy()], share_inputs=True)
            if (marks == _UNTOUCHED).any():
                raise MemoryError("OpenVINO gave no output, as it does where memory runs out")
        return output


ENGINE = OpenVinoEngine
