"""PyTorch compiled ahead of time by Inductor: once for a model, then kept."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

from relume.core.machine import cache_folder, processor
from relume.infer.engines.base import Engine, EngineError, Place
from relume.infer.engines.onnx_file import digest
from relume.nn.network import Network


class CompiledEngine(Engine):
    """Runs what torch.compile's compiler made of the model; making it takes minutes and a C++ compiler."""

    name = "compile"
    devices = ("cpu", "cuda")
    slow_to_make = True

    def __init__(self, network: Network, place: Place) -> None:
        super().__init__(network, place)
        path = package_of(network, place)
        if not path.is_file():
            _make(network, place, path)
        try:
            self._run = torch._inductor.aoti_load_package(str(path))
        except RuntimeError as error:
            path.unlink(missing_ok=True)
            raise EngineError(
                f"the compiled model cannot be loaded ({str(error).splitlines()[0][:160]}); make it anew"
            ) from None

    @torch.no_grad()
    def __call__(self, low: Tensor) -> Tensor:
        parts = [self._run(picture[None].to(self.place.device)).float().cpu() for picture in low]
        return torch.cat(parts)


def package_of(network: Network, place: Place) -> Path:
    """Return where the compiled model lies or will lie."""
    # What is compiled runs on processors like this one alone.
    machine = hashlib.sha256(f"{place.device.split(':')[0]} {processor()}".encode()).hexdigest()[:8]
    return cache_folder("compiled") / f"{digest(network)}-{machine}-torch{torch.__version__}.pt2"


def _make(network: Network, place: Place, path: Path) -> None:
    module = copy.deepcopy(network.folded()).to(place.device).eval().requires_grad_(False)
    example = torch.rand(1, network.contract.channels, 48, 40, device=place.device)
    free = torch.export.Dim.DYNAMIC
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "model.pt2"
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                program = torch.export.export(module, (example,), dynamic_shapes=({2: free, 3: free},))
                torch._inductor.aoti_compile_and_package(program, package_path=os.fspath(made))
        except Exception as error:  # whatever the compiler's many parts raise
            first = str(error).strip().splitlines()
            raise EngineError(
                f"{type(network).__name__} cannot be compiled ({type(error).__name__}: "
                f"{first[0][:200] if first else ''}); use --engine torch"
            ) from error
        shutil.move(made, path)


ENGINE = CompiledEngine
