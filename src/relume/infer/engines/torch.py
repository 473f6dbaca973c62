"""PyTorch itself, layer by layer: the reference that every other engine is checked against."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from relume.infer.engines.base import Engine, EngineError, Place, Precision
from relume.nn.network import Network

_TYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16,
}  # fmt: skip


class TorchEngine(Engine):
    """Runs the model, in its folded form where it has one, on any device that PyTorch has."""

    name = "torch"
    devices = ("cpu", "cuda", "mps", "xpu")
    precisions = ("fp32", "bf16", "fp16")
    exports = False

    def __init__(self, network: Network, place: Place) -> None:
        super().__init__(network, place)
        try:
            module = network.folded()
            if module is network and place.device != "cpu":
                module = copy.deepcopy(module)  # the caller's stays where it is
            self._module = module.to(place.device).eval()
            self(torch.zeros(1, self.channels, 1, 1))
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0][:160]
            if "Expected one of" in reason:  # a list of whatever PyTorch was ever built for
                reason = "there is no such kind of device"
            raise EngineError(
                f"cannot run on the device {place.device!r} ({reason}); use cpu, or see relume doctor"
            ) from error

    @classmethod
    def refuses(cls, network: Network, place: Place) -> str | None:
        """As any engine; fp16 is left to GPUs, as CPUs are slower in it."""
        if place.precision == "fp16" and place.device == "cpu":
            return "fp16 is for GPUs; take bf16 or fp32 on a CPU"
        # Whether a device is there is told when it is used, by its own name.
        return super().refuses(network, place) if place.device.split(":")[0] in cls.devices else None

    @torch.no_grad()
    def __call__(self, low: Tensor) -> Tensor:
        # TF32, cuDNN's default, errs by tens of levels of a 16-bit picture.
        cudnn = torch.backends.cudnn
        device, dtype = self.place.device, _TYPES[self.place.precision]
        # flags() turns cuDNN itself off unless told otherwise.
        with (
            cudnn.flags(enabled=cudnn.enabled, allow_tf32=False),
            torch.autocast(device.split(":")[0], dtype=dtype, enabled=dtype != torch.float32),
        ):
            return self._module(low.to(device)).float().cpu()


ENGINE = TorchEngine
