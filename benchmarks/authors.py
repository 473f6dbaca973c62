"""The authors' own module of CFSR, from their file, to measure beside ours."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


def untrained(code: Path, scale: int, *, merged: bool) -> nn.Module:
    """Import the authors' file, with a stand-in for the registry that it is decorated with, and build it.

    Args:
        code: their `cfsr_arch.py`.
        scale: of the network.
        merged: whether the edge branches are merged, as their file does it at once; else the training form.
    """
    registry = types.ModuleType("basicsr.utils.registry")

    class Registry:
        def register(self) -> Callable[[type], type]:
            return lambda each: each

    registry.ARCH_REGISTRY = Registry()  # type: ignore[attr-defined]
    for name in ("basicsr", "basicsr.utils"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["basicsr.utils.registry"] = registry
    found = importlib.util.spec_from_file_location("authors_cfsr", code)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of each layer that it merges
        found.loader.exec_module(module)
        if not merged:
            module.CFSR.merge_all = lambda _: None
            module.MLP.merge_kernel = False
        network: nn.Module = module.CFSR(
            in_chans=3, embed_dim=48, depths=(6, 6), dw_size=9, mlp_ratio=2, upscale=scale,
            upsampler="pixelshuffledirect",
        )  # fmt: skip
    return network


def trained(code: Path, weights: Path, scale: int) -> nn.Module:
    """Return the authors' module with their weights, for use."""
    network = untrained(code, scale, merged=True)
    state = torch.load(weights, weights_only=True)
    network.load_state_dict(state.get("params_ema", state.get("params", state)))
    return network.eval()
