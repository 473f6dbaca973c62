"""The Python face: what `import relume` offers beside reading and writing pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from os import PathLike
from pathlib import Path

import torch

from relume.core.catalogue import families, is_family, systems
from relume.core.checkpoints import Header
from relume.core.errors import RelumeError
from relume.core.pictures import Picture
from relume.infer.choosing import default_device
from relume.infer.engines.base import Place, Precision
from relume.infer.restorer import Relative, Restorer
from relume.infer.targets import Target
from relume.infer.wishes import Wishes
from relume.models import zoo
from relume.nn.network import Network

DEFAULT_SYSTEM = "cfsr"
DEFAULT_SCALE = 4


def load(
    name: str | PathLike[str] = DEFAULT_SYSTEM,
    *,
    scale: float | None = None,
    engine: str | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
    threads: int | None = None,
    effort: float | None = None,
    strength: float | None = None,
    say: Callable[[str], None] | None = None,
) -> Restorer:
    """Load a model for use.

    Args:
        name: a variant (`relume models` lists them), what variants of several scales share of their names
            ("cfsr", "cfsr-photo"), or a weights file, ours or its authors'. A shared name brings the models
            for all scales, as does a file of weights for several; another file, or a variant, is used alone,
            whatever size is asked for.
        scale: which of several scales to begin with: the smallest that reaches it; None takes x4, or of a
            file its own.
        engine: "torch", "native", "compile", "onnxruntime", "openvino" or "ncnn"; "auto" takes the quickest
            here, measured once for a machine and kind of model. None takes what the environment variable
            RELUME_ENGINE names, else "auto".
        device: "cpu", "cuda", "vulkan" …; None takes a CUDA GPU where there is one, else the CPU.
        precision: of the arithmetic: "fp32", "bf16" or "fp16"; not every engine has all.
        threads: on the CPU; None takes PyTorch's number, that of the cores.
        effort: 0..1, quality against time, for models that have such a choice; None takes the model's own.
        strength: 0..1, for models that have a slider between two looks; None takes the model's own.
        say: told what takes long or had to be done otherwise, one line each.

    Raises:
        UnknownNameError: no such model or engine; the nearest is named.
        CheckpointError: the file cannot be used.
        EngineError: the engine or device cannot be used here, or for this model.
        RelumeError: the model knows no effort or strength, or they are out of range.
    """

    def ready(network: Network, header: Header) -> tuple[Network, str]:
        called = header.variant or f"{header.model} ({Path(name).name})"
        if effort is not None:
            _set_effort(network, effort, called)
        if strength is not None:
            set_strength(network, strength, called)
        return network, called

    relatives: dict[int, Relative] = {}
    if isinstance(name, str) and is_family(name):
        first = choose(name, scale)
        relatives = {
            each: Relative(other.name, partial(lambda which: ready(*zoo.load(which))[0], other.name))
            for each, other in families()[name].items()
            if other.name != first
        }
        name = first
    network, header = zoo.load(name if isinstance(name, str) else Path(name))
    # Of a file that is none of ours, nobody has said yet how its settings came about.
    if say and not header.sha256 and (trust := zoo.told_on_trust(header, name)):
        say(trust)
    served = zoo.scales_of(network, header)
    if not relatives and len(served) > 1:
        other = partial(zoo.at_scale, network, header)
        beginning = network.contract.scale if scale is None else _smallest_reaching(served, scale)
        for each in set(served) - {beginning}:
            called = ready(*other(each))[1]
            relatives[each] = Relative(called, partial(lambda scale: ready(*other(scale))[0], each))
        network, header = other(beginning)
    network, called = ready(network, header)
    place = Place(
        device=device or default_device(), precision=precision, threads=threads or torch.get_num_threads()
    )
    return Restorer(network, name=called, engine=engine, place=place, relatives=relatives, say=say)


def variant_named(name: str, scale: float | None = None) -> str:
    """Return a name as it is, and for a family's that of the variant which `choose` takes for a scale.

    Raises:
        RelumeError: the family's variants are not to be chosen from.
    """
    return choose(name, scale) if is_family(name) else name


def choose(family: str, scale: float | None) -> str:
    """Return the variant of a family to use for a scale.

    The smallest whose scale reaches what is asked for, or the largest there is; where nothing is asked for,
    x4. Only those with weights count, where there are such.

    Raises:
        RelumeError: it is a system without variants, or with several families of which none has its name.
    """
    if family not in families():
        names = list(systems()[family].variants)
        if not names:
            raise RelumeError(f"{family} has no variants to choose from; name a weights file")
        raise RelumeError(f"{family} has several variants for one scale: {', '.join(names)}; name one")
    fitting = families()[family]
    wanted = DEFAULT_SCALE if scale is None else scale
    return fitting[_smallest_reaching(fitting, wanted)].name


def _smallest_reaching(scales: Iterable[int], wanted: float) -> int:
    """Return the smallest scale that reaches what is wanted, or the largest where none does."""
    scales = sorted(scales)
    return next((scale for scale in scales if scale >= wanted), scales[-1])


def _set_effort(network: Network, effort: float, name: str) -> None:
    if not 0 <= effort <= 1:
        raise RelumeError(f"effort {effort:g} is out of range; choose 0 (quick) to 1 (best)")
    if not network.contract.effort:
        raise RelumeError(f"{name} knows no effort: it does the same everywhere; leave the effort out")
    network.effort = effort


def set_strength(network: Network, strength: float, name: str) -> None:
    """Set a network's slider.

    Raises:
        RelumeError: it has none, or the strength is out of range.
    """
    if not 0 <= strength <= 1:
        raise RelumeError(f"strength {strength:g} is out of range; choose 0 (weak) to 1 (strong)")
    if not network.contract.strength:
        raise RelumeError(f"{name} knows no strength: it was trained for one look; leave the strength out")
    network.strength = strength


def upscale(
    picture: Picture,
    scale: float | None = None,
    *,
    width: int | None = None,
    height: int | None = None,
    model: str | None = None,
    ensemble: bool = False,
    faithful: bool = False,
    tile: int | None = None,
    engine: str | None = None,
    device: str | None = None,
) -> Picture:
    """Enlarge one picture. For several, `load` once and call the model.

    Args:
        picture: what `relume.read` gave.
        scale: how many times longer the sides get, any number above 0; None takes the model's.
        width: of the output instead, in pixels; the height follows unless it is given too.
        height: likewise.
        model: system, variant or weights file, as for `load`; None takes the default.
        ensemble: run eight flips and turns and average: eight times the time for some quality.
        faithful: correct the output until it gives the input back when shrunk.
        tile: longest side of the tiles in input pixels, 0 for the whole picture at once; None by memory.
        engine: as for `load`.
        device: where to run.

    Raises:
        RelumeError: no such model, a size that cannot be, or memory does not suffice.
    """
    asked = any(wish is not None for wish in (scale, width, height))
    target = Target(scale=scale, width=width, height=height) if asked else None
    restorer = load(model or DEFAULT_SYSTEM, scale=scale, engine=engine, device=device)
    wishes = Wishes(target=target, tile=tile, ensemble=ensemble, faithful=faithful)
    enlarged = restorer.restore(picture, wishes).picture
    assert isinstance(enlarged, Picture)
    return enlarged
