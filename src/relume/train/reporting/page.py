"""One HTML page about one training or several: opens offline, in light and dark, and runs no stranger's code.

Whatever comes from a run is escaped on its way in (`markup`), and the page's own policy lets nothing
be fetched and no other script run.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import torch

from relume.core.files import write_text
from relume.core.places import without_places
from relume.train.reporting.album import Shot, shots, spread
from relume.train.reporting.charts import COLOURS, Line, chart, refuse_missing
from relume.train.reporting.dress import SCRIPT, STYLE
from relume.train.reporting.markup import Markup, element, joined
from relume.train.reporting.run import RunRecord, Weights, as_json
from relume.train.validation import BASELINE

_LOGARITHMIC = ("loss", "gradient", "learning_rate", "seconds")
_TITLES = {"psnr": "psnr, dB", "seconds_per_step": "seconds per step",
           "data_share": "share of the time waiting for data"}  # fmt: skip
_IN_A_STRIP = 4
# What the header of weights may tell of the machine that trained them.
_ENVIRONMENT = ("device", "processor", "gpu", "processes", "relume", "python", "torch")
# What the loop logs beside the parts of the loss, in the order in which it is shown.
_OF_THE_LOOP = ("learning_rate", "gradient", "seconds_per_step", "data_share")
# What a network trained beside is, by what it alone logs; and what such networks log under their own names.
_PARTNERS = {"real": "discriminator", "right": "classifier"}
_OF_A_PARTNER = ("real", "fake", "penalty", "right")


def write_page(runs: Sequence[RunRecord], path: Path) -> None:
    """Write the report of a run, or of several with their curves in the same charts.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RelumeError: the page cannot be written.
    """
    refuse_missing()
    write_text(path, page(runs))


def page(runs: Sequence[RunRecord]) -> str:
    """Return the report as HTML that is well-formed XML too."""
    names = _told_apart(runs)
    title = f"Training of {names[0]}" if len(runs) == 1 else f"{len(runs)} trainings compared"
    numbers = count(1)
    body = [element("h1", title), _overview(runs, names), _problems(runs, names)]
    charts = _charts(runs, names, numbers)
    if charts:
        body += [element("h2", "Curves"), element("div", joined(charts), class_="charts")]
    for run, name in zip(runs, names, strict=True):
        body += _album(run, name if len(runs) > 1 else "")
    for run, name in zip(runs, names, strict=True):
        body += _about(run, name if len(runs) > 1 else "")
    body.append(element("small", _made()))
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
    )
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(STYLE)),
    ]
    body.append(element("script", Markup(SCRIPT)))
    whole_page = element("html", element("head", joined(head)), element("body", joined(body)), lang="en")
    return f"<!DOCTYPE html>\n{whole_page}\n"


def _told_apart(runs: Sequence[RunRecord]) -> list[str]:
    """Return names for the runs: their folders', with the folder above where two are called the same."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else "/".join(run.folder.resolve().parts[-2:])
        for run, name in zip(runs, names, strict=True)
    ]


def _overview(runs: Sequence[RunRecord], names: Sequence[str]) -> Markup:
    now = time.time()
    plain = " or ".join(dict.fromkeys(run.plain for run in runs))
    columns = ["run", "model", "how it ended", "time", "validation, last", f"gain on {plain}", "best"]
    rows = []
    for run, name in zip(runs, names, strict=True):
        progress = run.progress
        last, gain = _last_validation(run)
        rows.append(
            [
                name,
                str(run.recipe.get("variant", "not known")),
                run.ending(now),
                _duration(progress.seconds) if progress is not None else "",
                last,
                gain,
                "" if progress is None or progress.best is None else f"{progress.best:.3f}",
            ]
        )
    return element("div", _table(columns, rows), class_="wide")


def _last_validation(run: RunRecord) -> tuple[str, str]:
    points = run.validation.get("psnr") or next(iter(run.validation.values()), [])
    if not points:
        return "none", ""
    step, value = points[-1]
    baseline = run.validation.get(f"psnr{BASELINE}")
    if "psnr" not in run.validation:
        return f"{value:.4g} after step {step}", ""
    gain = f"{value - baseline[-1][1]:+.3f} dB" if baseline else ""
    return f"{value:.3f} dB after step {step}", gain


def _problems(runs: Sequence[RunRecord], names: Sequence[str]) -> Markup:
    lines = [
        element("p", f"{name}: {problem}" if len(runs) > 1 else problem)
        for run, name in zip(runs, names, strict=True)
        for problem in run.problems
    ]
    lines += [
        element("p", f"{name + ': ' if len(runs) > 1 else ''}step {step}: {text}")
        for run, name in zip(runs, names, strict=True)
        for step, text in run.notices
    ]
    return element("div", joined(lines), class_="problems") if lines else Markup("")


def _charts(runs: Sequence[RunRecord], names: Sequence[str], numbers: count[int]) -> list[Markup]:
    """Draw one chart a figure; of a single run, the parts of the loss share one, and a partner's figures."""
    drawn: list[Markup] = []

    def add(title: str, lines: list[tuple[str, Line]]) -> None:
        if lines:
            number = next(numbers)
            logarithmic = title.startswith(_LOGARITHMIC)
            picture = chart([line for _, line in lines], number=number, logarithmic=logarithmic)
            legend = [_legend(label, line) for label, line in lines] if len(lines) > 1 else []
            heading = element("h3", _TITLES.get(title, title.replace("_", " ")))
            drawn.append(
                element("div", heading, picture, element("div", *legend, class_="legend"), class_="chart")
            )

    measured = _names(run.validation for run in runs)
    for name in (name for name in measured if not name.endswith(BASELINE)):
        lines = _of_runs(name, [run.validation for run in runs], names)
        if len(runs) == 1:
            lines = [(f"validation, {name}", line) for _, line in lines]
        add(name, lines + _baselines(name + BASELINE, runs, names))
    logged = _names(run.curves for run in runs)
    partner, its_own = _partner(logged)
    parts = [name for name in logged if name not in its_own and not name.startswith(_OF_THE_LOOP)]
    if len(runs) == 1:
        add("loss and its parts" if len(parts) > 1 else "loss", _of_figures(parts, runs[0]))
        add(partner, _of_figures(its_own, runs[0]))
    else:
        for name in (*parts, *its_own):
            title = f"{partner}: {name.removeprefix('partner_')}" if name in its_own else name
            add(title, _of_runs(name, [run.curves for run in runs], names))
    for start in _OF_THE_LOOP:
        for name in (name for name in logged if name.startswith(start)):
            add(name, _of_runs(name, [run.curves for run in runs], names))
    return drawn


def _baselines(name: str, runs: Sequence[RunRecord], names: Sequence[str]) -> list[tuple[str, Line]]:
    """Return the lines of what was compared with: one where all runs have the same, else one a run."""
    lines = _of_runs(name, [run.validation for run in runs], names)
    plain = {label: run.plain for run, label in zip(runs, names, strict=True)}
    if len({(plain[label], round(line.points[-1][1], 6)) for label, line in lines}) > 1:
        return [
            (f"{plain[label]}, {label}", Line(line.points, line.colour, dashed=True)) for label, line in lines
        ]
    longest = max(lines, key=lambda each: each[1].points[-1][0], default=None)
    return [(plain[longest[0]], Line(longest[1].points, "#888888", dashed=True))] if longest else []


def _partner(logged: Sequence[str]) -> tuple[str, list[str]]:
    """Return what the network trained beside is called, and which of the logged figures are its own."""
    if "partner_loss" not in logged:
        return "", []
    kind = next((kind for name, kind in _PARTNERS.items() if name in logged), "network trained beside")
    return kind, [name for name in logged if name.startswith("partner_") or name in _OF_A_PARTNER]


def _of_figures(figures: Sequence[str], run: RunRecord) -> list[tuple[str, Line]]:
    """Return lines of several figures of one run."""
    return [
        (name, Line(run.curves[name], COLOURS[index % len(COLOURS)])) for index, name in enumerate(figures)
    ]


def _names(curves: Any) -> list[str]:
    return list(dict.fromkeys(name for each in curves for name in each))


def _of_runs(
    name: str, curves: Sequence[Mapping[str, Sequence[tuple[int, float]]]], names: Sequence[str]
) -> list[tuple[str, Line]]:
    return [
        (label, Line(each[name], COLOURS[index % len(COLOURS)]))
        for index, (label, each) in enumerate(zip(names, curves, strict=True))
        if each.get(name)
    ]


def _legend(label: str, line: Line) -> Markup:
    kind = "swatch dashed" if line.dashed else "swatch"
    swatch = element("span", "", class_=kind, style=f"border-color: {line.colour}")
    return Markup(element("span", swatch, label, class_="entry") + " ")


def _album(run: RunRecord, name: str) -> list[Markup]:
    """Show each validation picture: its middle at full size at growing steps, and all of it with a slider."""
    parts: list[Markup] = []
    problems: list[str] = []
    for picture, series in run.pictures.items():
        found = shots(series, problems)
        if found:
            parts += [element("h3", picture), _strip(found, run), _slider(found, picture, run.plain)]
    parts += [element("p", problem, class_="problems") for problem in problems]
    if parts:
        parts.insert(0, element("h2", f"Pictures of {name}" if name else "Pictures"))
    return parts


def _strip(found: list[Shot], run: RunRecord) -> Markup:
    of_set = dict(run.validation.get("psnr", []))
    found = spread(found, _IN_A_STRIP)
    figures = [(f"step {shot.step}" + _decibels(of_set.get(shot.step)), shot.details[1]) for shot in found]
    cells = [(run.plain, found[-1].details[0]), *figures, ("original", found[-1].details[2])]
    shown = [
        element("figure", element("img", src=address, alt=label), element("figcaption", label))
        for label, address in cells
    ]
    return element("div", element("div", joined(shown), class_="strip"), class_="wide")


def _decibels(value: float | None) -> str:
    return "" if value is None else f" (set: {value:.2f} dB)"


def _slider(found: list[Shot], picture: str, plain: str) -> Markup:
    last = len(found) - 1
    slider = element("input", type="range", min=0, max=last, value=last, step=1, class_="hidden",
                     aria_label=f"step of {picture}")  # fmt: skip
    sheets = [
        element(
            "div",
            element("small", f"step {shot.step}"),
            element("img", src=shot.sheet, width=shot.size[0], height=shot.size[1],
                    alt=f"{picture} after step {shot.step}: {plain}, output, original"),
            class_="shot",
        )
        for shot in found
    ]  # fmt: skip
    return element("figure", slider, joined(sheets), class_="steps")


def _about(run: RunRecord, name: str) -> list[Markup]:
    """Tell weights, environment and recipe of a run."""
    of = f" of {name}" if name else ""
    parts: list[Markup] = []
    if run.weights:
        parts.append(element("h2", f"Weights{of}"))
        for weights in run.weights:
            parts += [element("h3", weights.path.name), _facts(_about_weights(weights))]
    parts += [element("h2", f"Environment{of}"), _facts(_environment(run))]
    facts = run.facts()
    if facts:
        parts += [element("h2", f"State{of}"), _facts(facts)]
    if run.recipe:
        parts += [element("h2", f"Recipe{of}"), element("pre", as_json(without_places(run.recipe)))]
    return parts


def _environment(run: RunRecord) -> dict[str, Any]:
    """Return on what the run ran, as far as its weights and its recipe tell."""
    trained: Mapping[str, Any] = next((weights.header.trained for weights in run.weights), {})
    facts = {name: trained[name] for name in _ENVIRONMENT if trained.get(name) not in (None, "")}
    facts |= {name: run.recipe[name] for name in ("threads", "precision") if name in run.recipe}
    if not trained:
        facts["machine"] = "not known, as the run has written no weights yet"
    if facts.get("threads") == 0:
        facts["threads"] = "as many as PyTorch chose"
    return facts


def _about_weights(weights: Weights) -> dict[str, Any]:
    header = weights.header
    what = (
        "averaged weights of the best validation, in the form for training on"
        if weights.path.name == "best.safetensors"
        else "averaged weights of the last step, in the form that is used"
    )
    facts = {"what": what, "model": header.model, "variant": header.variant, "bytes": f"{weights.bytes:,}",
             "surgery": ", ".join(header.steps), "sha256 of the tensors": header.sha256}  # fmt: skip
    facts |= {key.replace("_", " "): value for key, value in header.trained.items()}
    facts |= {f"measured {number}": as_json(dict(row)) for number, row in enumerate(header.measured, start=1)}
    return {key: value for key, value in facts.items() if value not in (None, "", [], {})}


def _facts(facts: Mapping[str, Any]) -> Markup:
    rows = [
        element(
            "tr",
            element("th", str(key)),
            element("td", value if isinstance(value, str) else as_json(value)),
        )
        for key, value in facts.items()
    ]
    return element("div", element("table", joined(rows)), class_="wide")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    head = element("thead", element("tr", *(element("th", name) for name in columns)))
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("table", head, element("tbody", joined(body)))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _made() -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"This page was made on {when} by relume report, with Python {platform.python_version()} "
        f"and torch {torch.__version__} on {platform.system()} {platform.machine()}."
    )
