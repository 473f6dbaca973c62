"""`relume models`, `relume methods`, `relume show`: what is here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from relume.apps.console import out, printable

if TYPE_CHECKING:
    from relume.core.catalogue import CatalogueVariant, System

_SETS = ("Set5", "Set14", "B100")
_AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON instead of a table.")]


def models(as_json: _AsJson = False) -> None:
    """List the models that can run: those that come with weights."""
    from relume.core.catalogue import variants

    ready = [each for each in variants().values() if each.weights_path and each.weights_path.is_file()]
    if as_json:
        out.print_json(json.dumps([_facts(variant) for variant in ready]))
        return
    table = Table(title="Models with weights (dB: PSNR of luma, protocol sr-y)", title_justify="left")
    table.add_column("name", no_wrap=True)
    for heading in ("scale", "parameters", "file", *_SETS):
        table.add_column(heading, justify="right")
    for variant in ready:
        assert variant.weights_path is not None
        table.add_row(
            variant.name,
            f"x{variant.scale}",
            f"{variant.parameters:,}",
            f"{variant.weights_path.stat().st_size / 2**20:.1f} MiB",
            *(_figure(variant, name) for name in _SETS),
        )
    out.print(table)
    if ready:
        out.print("Use one: relume upscale photo.jpg -n NAME    Know more: relume show NAME", markup=False)
    else:
        out.print("None yet; make one: relume train VARIANT --data FOLDER (list them: relume methods)")


def methods(as_json: _AsJson = False) -> None:
    """List the published systems that are implemented."""
    from relume.core.catalogue import systems

    if as_json:
        out.print_json(json.dumps([{"name": each.name, **each.card} for each in systems().values()]))
        return
    table = Table("name", "job", "title", "published", "variants", "recipe")
    for system in systems().values():
        table.add_row(
            system.name,
            system.card["task"].replace("_", " "),
            system.card["title"],
            system.card["venue"],
            ", ".join(system.variants),
            "yes" if system.recipe else "no",
        )
    out.print(table)


def show(name: Annotated[str, typer.Argument(help="A system, a variant, or a weights file.")]) -> None:
    """Tell what a system, a variant or a weights file is, what its paper claims and what we measured."""
    from relume.core.catalogue import systems, variants
    from relume.core.errors import UnknownNameError

    if name in systems():
        system, chosen = systems()[name], list(systems()[name].variants.values())
    elif name in variants():
        system, chosen = systems()[variants()[name].system], [variants()[name]]
    elif Path(name).suffix:
        _show_file(Path(name))
        return
    else:
        raise UnknownNameError("model or method", name, {*variants(), *systems()})
    _show_card(system)
    for variant in chosen:
        _show_variant(variant, system)


def _show_card(system: System) -> None:
    card = system.card
    out.print(f"[bold]{system.name}[/]  {card['title']}")
    places = [
        card["venue"],
        f"https://arxiv.org/abs/{card['arxiv']}" if card["arxiv"] else None,
        card["code"],
    ]
    out.print(" · ".join(place for place in places if place))
    out.print(f"\n{card['summary']}\n")
    out.print(f"code: {system.module}    recipe: {system.recipe or 'none'}")
    if card["use"]:
        out.print("switch it on, for instance:")
        for command in card["use"]:
            # As one line whatever the terminal's width, so that it can be copied.
            out.print(f"  {command}", markup=False, soft_wrap=True)


def _show_file(path: Path) -> None:
    """Print what a weights file says of itself.

    Raises:
        CheckpointError: it cannot be read, or is not ours and so says nothing.
    """
    from relume.core.checkpoints import is_safetensors, read_header
    from relume.core.errors import CheckpointError

    header = None if path.is_file() and not is_safetensors(path) else read_header(path)
    if header is None:
        raise CheckpointError(f"{path} says nothing of itself; make it a checkpoint: relume convert {path}")
    rows = {
        "system": header.model,
        "variant": header.variant or "of its own",
        "settings": json.dumps(header.config),
        "surgery": ", ".join(header.steps) or "none",
        **{name.replace("_", " "): _plain(value) for name, value in header.trained.items()},
        **{f"on {entry.get('set')}": json.dumps(entry) for entry in header.measured},
        "recipe": json.dumps(header.recipe) if header.recipe else "none",
        "sha256": header.sha256,
    }
    for name, value in rows.items():
        out.print(f"{printable(name):<17}{printable(value)}", markup=False, soft_wrap=True)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _show_variant(variant: CatalogueVariant, system: System) -> None:
    out.print(f"\n[bold]{variant.name}[/]  x{variant.scale}, {variant.parameters:,} parameters")
    if not variant.weights_path:
        if system.recipe:
            how = f"make them: relume train {variant.name} --data FOLDER"
            out.print(f"  no weights with us; {how}")
            out.print(f"  what goes before, if anything, is told by {system.recipe.replace('.', '/')}.py")
        else:
            out.print("  no weights with us, and no recipe to make them")
    else:
        out.print(f"  weights: {variant.weights} {_trained(variant.trained)}")
        if "command" in variant.trained:
            out.print(f"  made by: {variant.trained['command']}", markup=False)
    claims = [claim for claim in system.card["claims"] if claim["variant"] == variant.name]
    if not claims and not variant.measured:
        return
    table = Table("set", "metric", "paper", "measured with our weights", "bicubic", "protocol")
    for dataset, metric in _rows(claims, variant.measured):
        claimed = next((c for c in claims if (c["dataset"], c["metric"]) == (dataset, metric)), None)
        measured = variant.figures(dataset)
        table.add_row(
            dataset,
            metric,
            _number(claimed["value"] if claimed else None, metric),
            _number(measured.get(metric) if measured else None, metric),
            _number(measured.get(f"bicubic_{metric}") if measured else None, metric),
            measured["protocol"] if measured else claimed["protocol"] if claimed else "",
        )
    out.print(table)


def _rows(claims: list[Mapping[str, Any]], measured: tuple[Mapping[str, Any], ...]) -> list[tuple[str, str]]:
    sets = list(dict.fromkeys([*(c["dataset"] for c in claims), *(m["set"] for m in measured)]))
    kinds = dict.fromkeys(["psnr", "ssim", *(c["metric"] for c in claims)])
    # Measured beside a name are other facts too, so a figure is what bicubic has likewise.
    kinds |= dict.fromkeys(name for m in measured for name in m if f"bicubic_{name}" in m)
    return [(name, metric) for name in sets for metric in kinds]


def _trained(trained: Mapping[str, Any]) -> str:
    if trained["by"] != "relume":
        return f"(by {trained['by']})"
    return (
        f"(trained by {trained['by']}: {trained['of_steps']:,} steps in {trained['hours']:.2f} h on "
        f"{trained['device']}, {trained['pictures']} pictures of {', '.join(trained['folders'])}, "
        f"seed {trained['seed']}, from {trained['start'] or 'scratch'})"
    )


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return "-"
    return {"psnr": f"{value:.2f} dB", "sam": f"{value:.2f}°"}.get(metric, f"{value:.4f}")


def _figure(variant: CatalogueVariant, dataset: str) -> str:
    measured = variant.figures(dataset)
    return _number(measured["psnr"] if measured else None, "psnr")


def _facts(variant: CatalogueVariant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "system": variant.system,
        "scale": variant.scale,
        "parameters": variant.parameters,
        "weights": str(variant.weights_path),
        "measured": list(variant.measured),
        "trained": dict(variant.trained),
    }
