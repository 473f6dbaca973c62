"""`relume models`, `relume methods`, `relume show`: what is here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from relume.apps.console import out, printable

if TYPE_CHECKING:
    from relume.core.catalogue import CatalogueVariant, System

_SETS = ("Set5", "Set14", "B100")
_AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON instead of a table.")]


def models(
    every: Annotated[
        bool, typer.Option("--all", help="List also those without weights, which can be trained.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """List the models that can run: those that come with weights."""
    from relume.core.catalogue import variants

    ready = [each for each in variants().values() if each.weights_path and each.weights_path.is_file()]
    listed = list(variants().values()) if every else ready
    if as_json:
        out.print_json(json.dumps([_facts(variant) for variant in listed]))
        return
    kind = "Models" if every else "Models with weights"
    table = Table(title=f"{kind} (dB: PSNR of luma, protocol sr-y)", title_justify="left")
    table.add_column("name", no_wrap=True)
    for heading in ("scale", "parameters", "file", *_SETS):
        table.add_column(heading, justify="right")
    for variant in listed:
        size = variant.weights_path.stat().st_size if variant.weights_path and variant in ready else None
        table.add_row(
            variant.name,
            f"x{variant.scale}",
            f"{variant.parameters:,}",
            "none" if size is None else f"{size / 2**20:.1f} MiB",
            *(_figure(variant, name) for name in _SETS),
        )
    out.print(table)
    if ready:
        out.print("Use one: relume upscale photo.jpg -n NAME    Know more: relume show NAME", markup=False)
    else:
        out.print("None yet; make one: relume train VARIANT --data FOLDER (list them: relume models --all)")


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


def show(
    name: Annotated[str, typer.Argument(help="A system, a variant, what several share, or a weights file.")],
    figure: Annotated[
        Path | None, typer.Option(help="Draw how the network is built, as SVG.", metavar="FILE")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing drawing.")] = False,
) -> None:
    """Tell what a model is, when to choose it, what its paper claims and what we measured."""
    from relume.core.catalogue import families, systems, variants
    from relume.core.errors import UnknownNameError
    from relume.core.files import check_target

    if figure is not None:
        check_target(figure, overwrite=overwrite)
    if name in systems():
        system, chosen = systems()[name], list(systems()[name].variants.values())
    elif name in variants():
        system, chosen = systems()[variants()[name].system], [variants()[name]]
    elif name in families():
        chosen = list(families()[name].values())
        system = systems()[chosen[0].system]
    elif Path(name).suffix:
        _show_file(Path(name))
        if figure is not None:
            _draw(name, figure, overwrite=overwrite)
        return
    else:
        raise UnknownNameError("model or method", name, {*variants(), *families(), *systems()})
    drawn = next((each for each in chosen if each.weights), chosen[0]).name if chosen else None
    _show_card(system, drawn)
    for variant in chosen:
        _show_variant(variant, system)
    _show_ways(system, [variant.name for variant in chosen if not variant.weights])
    if figure is not None:
        _draw(drawn or name, figure, overwrite=overwrite)


def _show_card(system: System, drawn: str | None) -> None:
    """Print what holds for all variants; `drawn` is the one that a figure shows."""
    from relume.core.catalogue import ROOT, figure_of

    card = system.card
    out.print(f"[bold]{system.name}[/]  {card['title']}")
    places = [
        card["venue"],
        f"https://arxiv.org/abs/{card['arxiv']}" if card["arxiv"] else None,
        card["code"],
    ]
    out.print(" · ".join(place for place in places if place))
    out.print(f"\n{card['summary']}\n", markup=False)
    out.print(f"when to choose it: {card['when']}\n", markup=False)
    recipe = f"    recipe: {system.recipe or 'none'}" if system.variants else ""
    out.print(f"code: {system.module}{recipe}")
    if drawn:
        there = ROOT / figure_of(system.name)
        place = f"{there}, or " if there.is_file() else ""
        out.print(f"figure: {place}relume show {drawn} --figure {drawn}.svg", markup=False, soft_wrap=True)
    if card["use"]:
        out.print("switch it on, for instance:")
        for command in card["use"]:
            # As one line whatever the terminal's width, so that it can be copied.
            out.print(f"  {command}", markup=False, soft_wrap=True)


def _draw(name: str, path: Path, *, overwrite: bool) -> None:
    """Draw a network: a variant's, or a weights file's.

    Raises:
        RelumeError: the drawing cannot be written.
        UnknownNameError: it is no variant, as what is for any network has no figure.
    """
    from relume.apps.diagram import diagram
    from relume.core.catalogue import find_variant
    from relume.core.files import whole
    from relume.insight.anatomy import anatomy
    from relume.models import zoo

    if Path(name).suffix:
        _, header = zoo.load(Path(name))
        system, steps = header.model, header.steps
        config = zoo.config_class(system).parse(header.config, where=f"settings in {name}")
        title = header.variant or Path(name).stem
    else:
        system, chosen = find_variant(name).system, zoo.variant(name)
        config, steps, title = chosen.config, chosen.steps, name
    drawing = diagram(anatomy(lambda: zoo.build(config, system=system, steps=steps)), title=title)
    with whole(path, overwrite=overwrite) as hidden:
        hidden.write_text(drawing, encoding="utf-8")
    out.print(f"{name} → {path}", markup=False)


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
    from relume.core.figures import budgets_in_words, in_words, rows, tried

    scale = f"x{variant.scale}" if variant.scale > 1 else "same size"
    out.print(f"\n[bold]{variant.name}[/]  {scale}, {variant.parameters:,} parameters")
    if variant.weights:
        given = "cube.mat" if variant.cubes else "photo.jpg"
        out.print(f"  use it: relume upscale {given} -n {variant.name}")
        out.print(f"  weights: {variant.weights} {_trained(variant)}", markup=False)
        if "command" in variant.trained:
            for number, each in enumerate((*variant.trained.get("before", ()), variant.trained)):
                out.print(f"  {'then' if number else 'made'} by: {each['command']}", markup=False)
            out.print(f"  {budgets_in_words(variant.name, variant.budgets, variant.trained)}", markup=False)
    elif variant.trained:
        network = tried(variant.name, variant.trained)
        out.print(f"  measured after a short training of {network}  {_trained(variant)}", markup=False)
        out.print(f"  which was: {variant.trained['command']}", markup=False)
    known = rows(system.card["claims"], variant.measured, variant.name)
    if not known:
        return
    headings = ("paper", "measured", "bicubic", f"{variant.kind}s")
    told = [
        (*map(in_words, (row.claimed, row.measured, row.bicubic)), str(row.pictures or "")) for row in known
    ]
    shown = [place for place, _ in enumerate(headings) if any(cells[place] for cells in told)]
    title = "  PSNR in dB / SSIM, protocol sr-y where no other is named"
    table = Table("set", *(headings[place] for place in shown), title=title, title_justify="left")
    for row, cells in zip(known, told, strict=True):
        table.add_row(row.place, *(cells[place] or "-" for place in shown))
    out.print(table)


def _show_ways(system: System, without: list[str]) -> None:
    """Print how to come by weights for variants that have none with us."""
    if not without:
        return
    out.print(f"\nno weights with us for {', '.join(without)}")
    cubes = system.variants[without[0]].cubes
    if system.recipe:
        told = f"{system.recipe.replace('.', '/')}.py"
        folder = "FOLDER_OF_CUBES" if cubes else "FOLDER"
        out.print(f"  make them: relume train {without[0]} --data {folder}", soft_wrap=True)
        out.print(f"  (what goes before, if anything, is told by {told})")
    if system.card["code"]:
        given = "CUBE.mat" if cubes else "PICTURE"
        out.print(f"  run a checkpoint of the authors: relume upscale {given} -n FILE", soft_wrap=True)


def _trained(variant: CatalogueVariant) -> str:
    from relume.core.figures import counted

    trained = variant.trained
    if trained["by"] != "relume":
        return f"(by {trained['by']})"
    return (
        f"(trained by {trained['by']}: {trained['of_steps']:,} steps in {trained['hours']:.2f} h on "
        f"{trained['device']}, {counted(trained['pictures'], variant.kind)} of "
        f"{', '.join(trained['folders'])}, "
        f"seed {trained['seed']}, from {trained['start'] or 'scratch'})"
    )


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} dB" if metric == "psnr" else f"{value:.4f}"


def _figure(variant: CatalogueVariant, dataset: str) -> str:
    measured = variant.figures(dataset)
    return _number(measured["psnr"] if measured else None, "psnr")


def _facts(variant: CatalogueVariant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "system": variant.system,
        "scale": variant.scale,
        "parameters": variant.parameters,
        "weights": str(variant.weights_path) if variant.weights_path else None,
        "measured": list(variant.measured),
        "trained": dict(variant.trained),
    }


COMMANDS = (models, methods, show)
