"""ncnn: small, and through Vulkan what reaches GPUs of AMD, Intel and Apple."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from relume.core.files import whole
from relume.core.machine import cache_folder
from relume.core.silence import silent_stderr
from relume.infer.engines.asking import ask_for_memory
from relume.infer.engines.base import Engine, EngineError, Place
from relume.infer.engines.onnx_file import digest
from relume.nn.network import Network

if TYPE_CHECKING:
    import ncnn

INPUT, OUTPUT = "in0", "out0"
_NO_MEMORY = -100
"""What a layer returns when memory runs out."""


class NcnnEngine(Engine):
    """Runs the model by ncnn, on the CPU or through Vulkan; pnnx converts it once.

    Args:
        network: the model.
        place: where to run.
        files: its .param and .bin; none takes those kept in the cache folder.
    """

    name = "ncnn"
    package = "ncnn"
    devices = ("cpu", "vulkan")
    precisions = ("fp32", "fp16")

    @property
    def tolerance(self) -> float:
        """Its Vulkan shaders take the tanh form of GELU, which is off by up to 5e-4 each."""
        return max(1e-3, super().tolerance) if self.place.device.startswith("vulkan") else super().tolerance

    def __init__(self, network: Network, place: Place, *, files: Sequence[Path] = ()) -> None:
        super().__init__(network, place)
        self._network = network
        import ncnn

        on_gpu = place.device.startswith("vulkan")
        if on_gpu:
            with silent_stderr():  # it describes each device when it first looks for them
                count = ncnn.get_gpu_count()
            index = place.device.partition(":")[2] or "0"
            if count == 0:
                raise EngineError("no Vulkan device is to be found; install its driver, or use --device cpu")
            if not index.isdecimal() or int(index) >= count:
                raise EngineError(f"there is no {place.device}; Vulkan devices: {count}")
        self._param, self._weights = files or kept(network)
        self._ncnn, self._vulkan = ncnn, int(index) if on_gpu else None
        try:
            self._net = self._open()
        except EngineError:
            if not files:
                self._param.unlink(missing_ok=True)  # damaged, perhaps; the next try makes it anew
            raise

    def _open(self) -> ncnn.Net:
        net = self._ncnn.Net()
        options = net.opt
        options.num_threads = self.place.threads
        options.use_vulkan_compute = self._vulkan is not None
        half = self.place.precision == "fp16"
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = half
        options.use_bf16_storage = False
        if self._vulkan is not None:
            net.set_vulkan_device(self._vulkan)
        if net.load_param(str(self._param)) or net.load_model(str(self._weights)):
            raise EngineError(f"ncnn cannot load {self._param}")
        return net

    def __call__(self, low: Tensor) -> Tensor:
        if self._vulkan is None:
            ask_for_memory(self._network, low.shape[-2] * low.shape[-1])
        return torch.stack([self._one(picture) for picture in low])

    def _one(self, picture: Tensor) -> Tensor:
        extractor = self._net.create_extractor()
        pixels = picture.contiguous().numpy()  # named, as ncnn's matrix does not keep it
        # Cloned: ncnn's matrices begin each channel at an aligned place.
        extractor.input(INPUT, self._ncnn.Mat(pixels).clone())
        failed, output = extractor.extract(OUTPUT)
        if not failed:
            return torch.from_numpy(np.array(output))
        del extractor, output
        # What it could not allocate it counts as lent out, and complains of on stderr when it is released.
        with silent_stderr():
            self._net = self._open()
        if failed == _NO_MEMORY:
            raise MemoryError("ncnn ran out of memory")
        raise EngineError(f"ncnn failed on this tile ({failed}); use --engine torch")


def kept(network: Network) -> tuple[Path, Path]:
    """Return the model's ncnn files in the cache folder, made where they are not there yet.

    Raises:
        EngineError: the model cannot be converted.
    """
    folder = cache_folder("ncnn")
    stem = digest(network)
    param, weights = folder / f"{stem}.param", folder / f"{stem}.bin"
    if not (param.is_file() and weights.is_file()):
        convert(network, param, weights)
    return param, weights


def convert(network: Network, param: Path, weights: Path) -> None:
    """Write a model as ncnn's two files, any height and width, weights in float32.

    Raises:
        EngineError: pnnx is missing, or cannot convert the model.
    """
    try:
        import pnnx
    except ImportError:
        raise EngineError("converting needs the package pnnx: pip install 'relume[ncnn]'") from None
    module = network.folded().eval()
    channels = network.contract.channels
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        try:
            with torch.no_grad():
                traced = torch.jit.trace(module, torch.rand(1, channels, 24, 20), check_trace=False)
        except Exception as error:  # whatever a model's own code raises where sizes are tensors
            raise EngineError(
                f"{type(network).__name__} cannot be converted for ncnn ({type(error).__name__}: "
                f"{str(error)[:120]}); use --engine torch"
            ) from error
        traced.save(work / "model.pt")
        # Two sizes tell pnnx that height and width are free.
        command = [
            pnnx.EXEC_PATH, "model.pt", f"inputshape=[1,{channels},24,20]",
            f"inputshape2=[1,{channels},32,44]", "fp16=0",
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, errors="replace", check=False
        )
        made = work / "model.ncnn.param", work / "model.ncnn.bin"
        if done.returncode or not all(path.is_file() for path in made):
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            raise EngineError(
                f"pnnx cannot convert the model: {lines[-1][:200] if lines else done.returncode}"
            )
        # The weights first: the pair counts as made when the second file is there.
        for source, target in zip(reversed(made), (weights, param), strict=True):
            with whole(target) as hidden:
                hidden.write_bytes(source.read_bytes())


ENGINE = NcnnEngine
