"""The Python face: what `import relume` offers beside reading and writing pictures."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from relume.core.catalogue import find_variant, systems, variants
from relume.core.errors import RelumeError, UnknownNameError
from relume.core.pictures import Picture
from relume.infer.restorer import DEFAULT_TILE, Restorer
from relume.models import zoo

DEFAULT_SYSTEM = "cfsr"
DEFAULT_SCALE = 4


def load(
    name: str | PathLike[str] = f"{DEFAULT_SYSTEM}-x{DEFAULT_SCALE}", *, device: str | None = None
) -> Restorer:
    """Load a model for use.

    Args:
        name: a variant (`relume models` lists them) or a weights file, ours or its authors'.
        device: "cpu", "cuda" …; None takes a CUDA GPU where there is one, else the CPU.

    Raises:
        UnknownNameError: no such variant; the nearest is named.
        CheckpointError: the file cannot be used.
    """
    network, header = zoo.load(name if isinstance(name, str) else Path(name))
    return Restorer(network, name=header.variant or f"{header.model} ({Path(name).name})", device=device)


def choose(name: str | None, scale: int | None) -> str:
    """Return the variant or file meant by a name and a scale, either of which may be left out.

    Raises:
        UnknownNameError: no such variant.
        RelumeError: no variant has that scale, or the named one has another.
    """
    if name is not None and name not in systems() and zoo.looks_like_a_file(name):
        return name
    if name is None or name in systems():
        system = systems()[name or DEFAULT_SYSTEM]
        wanted = DEFAULT_SCALE if scale is None else scale
        fitting = [variant.name for variant in system.variants.values() if variant.scale == wanted]
        if not fitting:
            scales = sorted({variant.scale for variant in system.variants.values()})
            known = ", ".join(str(each) for each in scales) or "none"
            raise RelumeError(f"{system.name} has no variant for scale {wanted}; it has: {known}")
        if len(fitting) > 1:
            raise RelumeError(
                f"{system.name} has several variants for scale {wanted}: {', '.join(fitting)}; name one"
            )
        return fitting[0]
    if name not in variants():
        raise UnknownNameError("model", name, {*variants(), *systems()}, hint="(list them: relume models)")
    variant = find_variant(name)
    if scale is not None and variant.scale != scale:
        raise RelumeError(
            f"{name} enlarges by {variant.scale}, not by {scale}; leave out the name or the scale"
        )
    return name


def upscale(
    picture: Picture,
    scale: int | None = None,
    *,
    model: str | None = None,
    tile: int = DEFAULT_TILE,
    device: str | None = None,
) -> Picture:
    """Enlarge one picture. For several, `load` once and call the model.

    Args:
        picture: what `relume.read` gave.
        scale: 2, 3 or 4; None takes the model's.
        model: variant, system or weights file; None takes the default.
        tile: longest side of the tiles in input pixels, 0 for the whole picture at once.
        device: where to run.

    Raises:
        RelumeError: no such model, or none for that scale.
    """
    restorer = load(choose(model, scale), device=device)
    if scale is not None and restorer.scale != scale:
        raise RelumeError(
            f"{restorer.name} enlarges by {restorer.scale}, not by {scale}; leave out the scale"
        )
    return restorer(picture, tile=tile)
