"""The authors' own modules, from their files, to measure beside ours.

Their files import libraries that they need little of and that need much themselves, so stand-ins are there
while a file is imported: a registry that registers nothing, and what they take from timm and einops.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import math
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn


class Registry:
    """What registers classes by their names."""

    def register(self) -> Callable[[type], type]:
        """Return a decorator that leaves a class as it is."""
        return lambda each: each


class Rearrange(nn.Module):
    """`rearrange` with a fixed pattern."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self.pattern = pattern

    def forward(self, x: Tensor) -> Tensor:
        """Return the tensor rearranged."""
        return rearrange(x, self.pattern)


class DropPath(nn.Identity):
    """What leaves out a path in training; none in use, which is all that is measured."""


def rearrange(x: Tensor, pattern: str, **lengths: int) -> Tensor:
    """Split, permute and join dimensions as einops does, by such patterns as `b (h w) c -> b c h w`.

    Args:
        x: the tensor.
        pattern: names of its dimensions, and in which order they are to be; those in brackets form one.
        lengths: of dimensions in brackets, of all but one of a bracket.
    """
    before, order, after = _plan(pattern)
    sides: dict[str, int] = dict(lengths)
    for length, names in zip(x.shape, before, strict=True):
        for name in names:
            if name not in sides:
                sides[name] = length // math.prod(sides[other] for other in names if other != name)
    x = x.reshape([sides[name] for names in before for name in names]).permute(order)
    return x.reshape([math.prod(sides[name] for name in names) for names in after])


@functools.cache
def _plan(pattern: str) -> tuple[list[list[str]], list[int], list[list[str]]]:
    """Return the names in each dimension before, where each comes from, and the names in each after."""
    before, after = (
        [(inside or single).split() for inside, single in re.findall(r"\(([^)]*)\)|(\w+)", side)]
        for side in pattern.split("->")
    )
    names = [name for dimension in before for name in dimension]
    return before, [names.index(name) for dimension in after for name in dimension], after


_STAND_INS: dict[str, dict[str, object]] = {
    "basicsr": {},
    "basicsr.utils": {},
    "basicsr.utils.registry": {"ARCH_REGISTRY": Registry()},
    "basicsr.archs": {},
    "basicsr.archs.arch_util": {
        "to_2tuple": lambda side: side if isinstance(side, tuple) else (side, side),
        "trunc_normal_": nn.init.trunc_normal_,
    },
    "timm": {},
    "timm.models": {},
    "timm.models.layers": {"DropPath": DropPath, "trunc_normal_": nn.init.trunc_normal_},
    "einops": {"rearrange": rearrange, "repeat": None},
    "einops.layers": {},
    "einops.layers.torch": {"Rearrange": Rearrange},
}


@contextlib.contextmanager
def _standing_in() -> Iterator[None]:
    """Have the stand-ins imported in place of the libraries inside."""
    replaced = {name: sys.modules.get(name) for name in _STAND_INS}
    for name, contents in _STAND_INS.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(contents)
    try:
        yield
    finally:
        for name, module in replaced.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def imported(code: Path) -> types.ModuleType:
    """Import an authors' file."""
    found = importlib.util.spec_from_file_location(f"authors_{code.stem}", code)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    with _standing_in():
        found.loader.exec_module(module)
    return module


def untrained(code: Path, scale: int, *, merged: bool) -> nn.Module:
    """Build CFSR from its authors' file.

    Args:
        code: their `cfsr_arch.py`.
        scale: of the network.
        merged: whether the edge branches are merged, as their file does it at once; else the training form.
    """
    module = imported(code)
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of each layer that it merges
        if not merged:
            module.CFSR.merge_all = lambda _: None
            module.MLP.merge_kernel = False
        network: nn.Module = module.CFSR(
            in_chans=3, embed_dim=48, depths=(6, 6), dw_size=9, mlp_ratio=2, upscale=scale,
            upsampler="pixelshuffledirect",
        )  # fmt: skip
    return network


def trained(code: Path, weights: Path, scale: int) -> nn.Module:
    """Return the authors' module of CFSR with their weights, for use."""
    network = untrained(code, scale, merged=True)
    state = torch.load(weights, weights_only=True)
    network.load_state_dict(state.get("params_ema", state.get("params", state)))
    return network.eval()
