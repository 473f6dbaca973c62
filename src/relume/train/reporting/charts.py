"""Curves as SVG that takes its colours from the page, drawn by matplotlib; all words stay outside."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from relume.core.errors import MissingDependencyError
from relume.train.reporting.markup import Markup

COLOURS = ("#3b7dd8", "#e0803a", "#3f9d5a", "#c8504f", "#8a63c4", "#8f6b52", "#d071ae", "#7c7c7c")
"""Legible on white and on black; runs or parts take them in turn."""

_MOST_POINTS = 1000
_INK = "#010203"
"""Stands for the page's own colour of text."""


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        points: (step, value), in the order of steps.
        colour: of `COLOURS`.
        dashed: for what is compared with.
    """

    points: Sequence[tuple[int, float]]
    colour: str
    dashed: bool = False


def refuse_missing() -> None:
    """Say so when charts cannot be drawn here.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "drawing a report's curves", "train") from error


def chart(lines: Sequence[Line], *, number: int, logarithmic: bool = False) -> Markup:
    """Draw curves over the steps.

    Args:
        lines: at least one, none empty.
        number: of the chart on its page, so that names inside stay apart.
        logarithmic: whether values go by powers of ten, where all are above 0.

    Returns:
        An `svg` element.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    settings = {"svg.fonttype": "none", "svg.hashsalt": f"chart {number}", "text.parse_math": False,
                "font.family": "sans-serif", "font.size": 9, "text.color": _INK, "axes.edgecolor": _INK,
                "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "grid.color": _INK,
                "grid.alpha": 0.15, "axes.spines.top": False, "axes.spines.right": False}  # fmt: skip
    with rc_context(settings):
        figure = Figure(figsize=(5.4, 2.7), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            points = thinned(line.points)
            axes.plot(
                [step for step, _ in points],
                [value for _, value in points],
                color=line.colour,
                linewidth=1.4,
                linestyle="--" if line.dashed else "-",
                marker="." if len(points) < 40 else None,
                markersize=4,
            )
        values = [value for line in lines for _, value in line.points]
        if logarithmic and min(values) > 0:
            axes.set_yscale("log")
            # The usual labels are formulas, which need matplotlib's own fonts.
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            told = _told_digits(min(values), max(values))
            axes.yaxis.set_minor_formatter(
                FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in told else "")
            )
        axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
        axes.grid(visible=True)
        axes.set_xlabel("step")
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(written.getvalue(), number)


def _told_digits(least: float, most: float) -> str:
    """Return first digits that are labelled between powers of ten: the fewer powers, the more of them."""
    if math.floor(math.log10(most)) < math.ceil(math.log10(least)):
        return "23456789"
    return "235" if most < 20 * least else ""


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most some hundred points: of long curves, the means of neighbours."""
    size = -(-len(points) // _MOST_POINTS)
    if size < 2:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _for_page(svg: str, number: int) -> Markup:
    """Take the `svg` element alone, with names of its own and the page's colour."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"xlink:href=", "href=", svg)
    svg = re.sub(r'\bid="', f'id="c{number}-', svg)
    svg = re.sub(r"url\(#", f"url(#c{number}-", svg)
    svg = re.sub(r'href="#', f'href="#c{number}-', svg)
    svg = re.sub(
        r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg xmlns="http://www.w3.org/2000/svg" \1>', svg
    )
    return Markup(svg.replace(_INK, "currentColor").strip())
