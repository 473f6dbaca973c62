"""How a network is built, seen while it runs: what its modules call, in which order, and who feeds whom.

Nothing is read off source code. A picture is sent through the network; each module notes which modules
inside it were called and which operations joined their outputs (sums, products, concatenations …). What
only moves or scales numbers (views, paddings, constants) is passed over. Modules that come again and again
in a row are told once, with how often.

Shapes: 1 C H W, the picture that is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relume.nn.network import Network, count_parameters

SIDE = 64
"""H and W of the picture: whole windows and halvings of all networks fit in."""

INPUT = -1
"""Stands for what a module was given, among the sources of its parts."""

_WITH_NUMBERS = 1_000_000
"""Parameters up to which a network runs on numbers, as the way through some depends on them; larger ones run
on shapes alone."""

_LONGEST_PERIOD = 8

_SIGNS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "cat": "concat", "stack": "concat",
          "scaled_dot_product_attention": "attention", "getitem": "select",
          "index_select": "select", "index_add": "gather"}  # fmt: skip

# Operations that are told though they have one source only; others of one source move or scale numbers.
_WORKING = {"relu", "gelu", "silu", "sigmoid", "tanh", "leaky_relu", "softmax", "pixel_shuffle",
            "pixel_unshuffle", "interpolate", "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "conv2d",
            "linear", "layer_norm", "normalize", "mean"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Part:
    """One step of a module's work.

    Attributes:
        role: what the step is called in its module; empty where it is an operation, or a module of PyTorch
            that holds nothing.
        kind: its class, or the operation.
        parameters: how many numbers it holds, all repeats together; what an earlier step holds too is not
            counted again.
        shape: of what it gives.
        sources: places of the steps that feed it, in ascending order; `INPUT` for the module's own input.
        repeats: how often it comes in a row.
        opens: the key of its own parts in `Anatomy.modules`, or None.
    """

    role: str
    kind: str
    parameters: int
    shape: tuple[int, ...]
    sources: tuple[int, ...]
    repeats: int = 1
    opens: str | None = None


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Several steps that come again together: those from `first` to `last`, `repeats` times."""

    first: int
    last: int
    repeats: int


@dataclass(frozen=True, kw_only=True)
class Module:
    """What one module does.

    Attributes:
        kind: its class.
        parameters: how many numbers it holds.
        shape: of its input; empty where it takes none.
        parts: its steps, in the order in which they run.
        loops: which of them come again.
    """

    kind: str
    parameters: int
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    loops: tuple[Loop, ...]


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """How a network is built.

    Attributes:
        root: the key of the network itself.
        modules: every kind of module in it that calls others, by key.
    """

    root: str
    modules: Mapping[str, Module]


def anatomy(build: Callable[[], Network]) -> Anatomy:
    """Look into a network while a picture of 64 × 64 goes through it.

    Args:
        build: makes the network; called on the device "meta" first, to see how large it is.
    """
    with torch.device("meta"):
        network = build()
    device = "meta"
    if count_parameters(network) <= _WITH_NUMBERS:
        device = "cpu"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build()
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, network.contract.channels, SIDE, SIDE, generator=generator).to(device)
    recorder = _Recorder()
    # With gradients, as without them work is done in pieces, which would be drawn each.
    with torch.enable_grad(), torch.device(device), recorder.watching(network.eval()), recorder:
        network(picture)
    return Anatomy(root=_key(network), modules=dict(recorder.modules))


@dataclass(kw_only=True)
class _Scope:
    """A module that runs.

    Attributes:
        module: it.
        names: its modules' names, by identity.
        shape: of its input.
        parts: so far.
        same: for each part what it must have in common with another to be a repeat of it.
        origins: which parts a tensor comes from, by the tensor's identity.
        held: those tensors, so that no identity is given twice.
        counted: modules whose parameters are told already.
    """

    module: nn.Module
    names: Mapping[int, str]
    shape: tuple[int, ...]
    parts: list[Part] = field(default_factory=list)
    same: list[object] = field(default_factory=list)
    origins: dict[int, frozenset[int]] = field(default_factory=dict)
    held: list[Tensor] = field(default_factory=list)
    counted: set[int] = field(default_factory=set)

    def sources(self, tensors: Sequence[Tensor]) -> frozenset[int]:
        return frozenset().union(*(self.origins.get(id(tensor), frozenset()) for tensor in tensors))

    def comes_from(self, tensors: Sequence[Tensor], origin: frozenset[int]) -> None:
        for tensor in tensors:
            self.origins[id(tensor)] = origin
            self.held.append(tensor)

    def add(self, part: Part, same: object, outputs: Sequence[Tensor]) -> None:
        self.comes_from(outputs, frozenset({len(self.parts)}))
        self.parts.append(part)
        self.same.append(same)


class _Recorder(TorchFunctionMode):
    """Follows a network's modules and the operations between them."""

    def __init__(self) -> None:
        super().__init__()
        self.modules: dict[str, Module] = {}
        self._running: list[tuple[nn.Module, _Scope | None, list[Tensor]]] = []

    def watching(self, network: nn.Module) -> ExitStack:
        """Follow a network as long as the context lasts."""
        hooks = ExitStack()
        for module in network.modules():
            if type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
                continue  # their modules count as those of the module around
            for handle in (
                module.register_forward_pre_hook(self._begins, with_kwargs=True),
                module.register_forward_hook(self._ends, with_kwargs=True),
            ):
                hooks.callback(handle.remove)
        return hooks

    def _begins(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = list(_tensors((args, kwargs)))
        scope = None
        if _calls_others(module):
            names = {id(each): name for name, each in module.named_modules()}
            shape = tuple(inputs[0].shape) if inputs else ()
            scope = _Scope(module=module, names=names, shape=shape)
            # Whole numbers that are handed in are places, of windows for instance, and no features.
            scope.comes_from([each for each in inputs if each.is_floating_point()], frozenset({INPUT}))
        self._running.append((module, scope, inputs))

    def _ends(self, module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        _, scope, inputs = self._running.pop()
        key = _key(module)
        if scope is not None and key not in self.modules:
            parts, loops = _told_once(scope.parts, scope.same)
            self.modules[key] = Module(
                kind=type(module).__name__,
                parameters=count_parameters(module),
                shape=scope.shape,
                parts=parts,
                loops=loops,
            )
        around = self._running[-1][1] if self._running else None
        outputs = list(_tensors(output))
        known = {id(tensor) for tensor in inputs}
        if around is None or all(id(tensor) in known for tensor in outputs):
            return  # it handed on what it was given
        parameters = 0 if id(module) in around.counted else count_parameters(module)
        around.counted.add(id(module))
        name = self._named(module)
        plain = type(module).__module__.startswith("torch.") and not count_parameters(module)
        part = Part(
            role="" if plain else _role(name) or _kind(module),
            kind=_in_words(_kind(module)) if plain else _kind(module),
            parameters=parameters,
            shape=tuple(outputs[0].shape),
            sources=tuple(sorted(around.sources(inputs))),
            opens=key if scope is not None and scope.parts else None,
        )
        around.add(part, (part.role, key, part.shape), outputs)

    def _named(self, module: nn.Module) -> str:
        """Return a module's name in the nearest one around that has it; some are handed on to others."""
        scopes = (scope for _, scope, _ in reversed(self._running) if scope is not None)
        return next(scope.names[id(module)] for scope in scopes if id(module) in scope.names)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        scope = self._running[-1][1] if self._running else None
        if scope is None:
            return result
        traced = [tensor for tensor in _tensors((args, kwargs)) if id(tensor) in scope.origins]
        name = _name_of(func)
        if name == "setitem":  # writes into a tensor, and returns nothing
            scope.comes_from([args[0]], scope.sources(traced))
            return result
        outputs = list(_tensors(result))
        if not traced or not outputs or name.endswith("_like") or name.startswith("new_"):
            return result
        if (len(traced) > 1 or name in _WORKING) and outputs[0].dtype != torch.bool:
            shape = tuple(outputs[0].shape)
            sign = _SIGNS.get(name, name.replace("_", " "))
            sources = tuple(sorted(scope.sources(traced)))
            part = Part(role="", kind=sign, parameters=0, shape=shape, sources=sources)
            scope.add(part, (sign, shape), outputs)
        else:
            scope.comes_from(outputs, scope.sources(traced))
        return result


def _told_once(parts: Sequence[Part], same: Sequence[object]) -> tuple[tuple[Part, ...], tuple[Loop, ...]]:
    """Leave out what comes again in a row.

    Args:
        parts: all steps.
        same: for each what makes it equal to another.
    """
    kept: list[Part] = []
    loops: list[Loop] = []
    place: dict[int, int] = {INPUT: INPUT}  # of each step among those kept
    at = 0
    while at < len(parts):
        period, times = _repetition(parts, same, at)
        first = len(kept)
        for step in range(period):
            held = sum(parts[at + step + period * time].parameters for time in range(times))
            kept.append(replace(parts[at + step], parameters=held, repeats=times if period == 1 else 1))
        place |= {at + step: first + step % period for step in range(period * times)}
        if period > 1:
            loops.append(Loop(first=first, last=first + period - 1, repeats=times))
        at += period * times
    told = [
        replace(part, sources=tuple(sorted({place[source] for source in part.sources} & set(range(-1, at)))))
        for at, part in enumerate(kept)
    ]
    return tuple(told), tuple(loops)


def _repetition(parts: Sequence[Part], same: Sequence[object], at: int) -> tuple[int, int]:
    """Return how many steps from a place on come again together, and how often: 1 and 1 where none do."""
    best = (1, 1)
    for period in range(1, _LONGEST_PERIOD + 1):
        once = same[at : at + period]
        times = 1
        while True:
            begin = at + times * period
            if same[begin : begin + period] != once or not _goes_on(parts[begin : begin + period], begin):
                break
            times += 1
        modules = any(part.role for part in parts[at : at + period])
        if times > 1 and modules and period * times > best[0] * best[1]:
            best = (period, times)
    return best


def _goes_on(again: Sequence[Part], begin: int) -> bool:
    """Tell whether steps, the first of which is at `begin`, take up what as many before them gave."""
    before = range(begin - len(again), begin)
    return any(source in before for part in again for source in part.sources)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _calls_others(module: nn.Module) -> bool:
    return not type(module).__module__.startswith("torch.") and any(True for _ in module.children())


def _key(module: nn.Module) -> str:
    """Return what two modules have in common that are built alike."""
    return f"{type(module).__qualname__} {count_parameters(module)} {module!r}"


def _role(name: str) -> str:
    words = [word for word in name.split(".") if not word.isdigit()]
    return words[-1].replace("_", " ") if words else ""


def _kind(module: nn.Module) -> str:
    kind = type(module).__name__
    size = getattr(module, "kernel_size", None)
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return kind
    kernel = "×".join(map(str, size)) if size else ""
    how = ""
    if module.groups > 1:
        how = "depthwise " if module.groups == module.in_channels else "grouped "
    if isinstance(module, nn.ConvTranspose2d):
        how += "transposed "
    arrow = "↑" if isinstance(module, nn.ConvTranspose2d) else "↓"
    stride = f" {arrow}{module.stride[0]}" if module.stride[0] > 1 else ""
    return f"{how or 'conv '}{kernel}{stride}"


def _in_words(kind: str) -> str:
    """Return a class as its function is called: "leaky relu" for LeakyReLU."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", kind).lower()


def _name_of(func: Any) -> str:
    """Return the plain name of an operation: "add" for the operator, the function, the method in place."""
    name = str(getattr(func, "__name__", func)).strip("_")
    return re.sub(r"^[ir](?=(add|sub|mul|truediv|matmul)$)", "", name).replace("truediv", "div")
