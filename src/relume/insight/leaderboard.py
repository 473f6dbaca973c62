"""Leaderboards: several models measured on the same sets, in one table, and as a figure.

Cost is counted and measured for one output of 1280 × 720 pixels, as papers on efficient networks do:
multiply-accumulates of the form in use, seconds of a run, and the memory that the run takes.

Shapes: B batch, C channels, h w low resolution, s scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from relume.core.errors import MissingDependencyError, RelumeError
from relume.core.expense import Expense, expense_of
from relume.core.figures import counted
from relume.core.files import whole, write_text
from relume.core.tables import csv_text
from relume.insight.evaluate import SetMean
from relume.nn.network import Network
from relume.nn.norms import LayerNorm2d
from relume.nn.padding import mirrored_to_least

OUTPUT = (720, 1280)
"""Height and width of the output for which cost is told."""

_EACH_NORMED = 5
"""Multiply-accumulates that fvcore counts for a value of a norm with scale and shift."""

BICUBIC = "bicubic"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one output of 1280 × 720 pixels costs.

    Attributes:
        macs: multiply-accumulates; None where they cannot be counted.
        expense: time and memory of a run.
        uncounted: why they cannot be counted.
    """

    macs: int | None
    expense: Expense
    uncounted: str = ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model's line.

    Attributes:
        name: the model's.
        scale: s.
        parameters: of the form in use.
        cost: None for bicubic.
        means: its figures, one a set, in the order of the sets.
    """

    name: str
    scale: int
    parameters: int
    cost: Cost | None
    means: tuple[SetMean, ...]


class UncountedError(RelumeError):
    """A network's multiply-accumulates cannot be counted."""


def costed(picture: Tensor, *, channels: int, scale: int) -> Tensor:
    """Return the input for which cost is told: a picture continued mirrored, `1 C h w`.

    Args:
        picture: `c H W`, of any size.
        channels: C, which are c, or one: then it is gray.
        scale: s.
    """
    height, width = (side // scale for side in OUTPUT)
    if channels == 1:
        picture = picture.mean(0, keepdim=True)
    return mirrored_to_least(picture[None], max(height, width))[..., :height, :width].contiguous()


def count_macs(network: nn.Module, low: Tensor) -> int:
    """Count the multiply-accumulates of one run, as fvcore does, by which papers count.

    That is those of convolutions and matrix products, and 5 for each value that a norm over channels gives.
    Nothing is computed, and the network loses its values; but where its contract says that it spends more on
    one picture than on another (`effort`), it is run on this one, and that is counted.

    Args:
        network: as it is used; it must take any picture size.
        low: its input, `1 C h w`.

    Raises:
        UncountedError: what it does cannot be followed without computing it.
    """
    by_picture = isinstance(network, Network) and network.contract.effort
    normed = 0

    def count(module: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:  # noqa: ARG001
        nonlocal normed
        normed += _EACH_NORMED * given.numel()

    handles = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, (nn.LayerNorm, LayerNorm2d))
    ]
    try:
        # Of attention, the counter knows the products alone, not the CPU's kernel that does all at once.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            if by_picture:
                network(low)
            else:
                network.to("meta")(low.to("meta"))
    except (NotImplementedError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise UncountedError(f"multiply-accumulates cannot be counted: {said[:200]}") from error
    finally:
        for handle in handles:
            handle.remove()
    return counter.get_total_flops() // 2 + normed


def time_run(run: Callable[[Tensor], Tensor], low: Tensor, *, device: str) -> Expense:
    """Run once small and then on the whole, and measure that.

    Args:
        run: maps `1 C h w` to `1 C sh sw`.
        low: the input.
        device: where it runs.
    """
    run(low[..., :32, :32])
    return expense_of(lambda: run(low), device=device)[1]


def bicubic_of(standing: Standing) -> Standing:
    """Return bicubic's line, from what was measured beside a model."""
    means = tuple(
        SetMean(
            set_name=mean.set_name,
            pictures=mean.pictures,
            scores=mean.bicubic,
            bicubic=mean.bicubic,
            seconds=0.0,
        )
        for mean in standing.means
    )
    return Standing(name=BICUBIC, scale=standing.scale, parameters=0, cost=None, means=means)


def ranked(standings: Sequence[Standing]) -> list[Standing]:
    """Order by scale, then by PSNR on the first set, the best first; bicubic joins each scale."""
    with_bicubic = list(standings)
    for scale in {each.scale for each in standings}:
        with_bicubic.append(bicubic_of(next(each for each in standings if each.scale == scale)))
    return sorted(with_bicubic, key=lambda each: (each.scale, -each.means[0].scores["psnr"], each.name))


def rows(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """Return one row a model as flat plain values, ranked."""
    return [
        {
            "scale": each.scale,
            "model": each.name,
            "parameters": each.parameters,
            "macs": each.cost.macs if each.cost else None,
            "seconds": round(each.cost.expense.seconds, 4) if each.cost else None,
            "memory_bytes": each.cost.expense.memory if each.cost else None,
            **{
                f"{mean.set_name} {metric}": round(value, 4)
                for mean in each.means
                for metric, value in mean.scores.items()
            },
        }
        for each in ranked(standings)
    ]


def cells(standings: Sequence[Standing]) -> tuple[list[str], list[list[str]]]:
    """Return headings and the cells of each line as text for people, ranked."""
    sets = [mean.set_name for mean in standings[0].means]
    headings = ["scale", "model", "parameters", "MACs", "seconds", "memory"]
    metrics = list(standings[0].means[0].scores)
    headings += [f"{name} {metric.upper()}" for name in sets for metric in metrics]
    lines = []
    for each in ranked(standings):
        cost = each.cost
        line = [f"x{each.scale}", each.name, f"{each.parameters:,}" if cost else "-"]
        line.append(f"{cost.macs / 1e9:.1f} G" if cost and cost.macs is not None else "-")
        line.append(f"{cost.expense.seconds:.2f}" if cost else "-")
        memory = cost.expense.memory if cost else None
        line.append("-" if memory is None else f"{memory / 2**20:.0f} MiB")
        for mean in each.means:
            line += [f"{mean.scores[metric]:.{4 if metric == 'ssim' else 2}f}" for metric in metrics]
        lines.append(line)
    return headings, lines


def write_csv(standings: Sequence[Standing], path: Path) -> None:
    """Write one line a model; the file appears whole or not at all."""
    records = rows(standings)
    write_text(path, csv_text(records, list(records[0])))


def write_markdown(standings: Sequence[Standing], path: Path, *, heading: str, notes: Sequence[str]) -> None:
    """Write the table as Markdown, between a heading and notes on how it was measured."""
    headings, lines = cells(standings)
    left = {"model"}
    parts = [
        f"# {heading}",
        "",
        "| " + " | ".join(headings) + " |",
        "|" + "|".join("---" if name in left else "---:" for name in headings) + "|",
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
        *notes,
    ]
    write_text(path, "\n".join(parts) + "\n")


def draw_table(standings: Sequence[Standing], path: Path, *, heading: str) -> None:
    """Draw the table as a PNG."""
    from PIL import Image, ImageDraw, ImageFont

    headings, lines = cells(standings)
    font, step, gap = ImageFont.load_default(size=15), 26, 22
    widths = [
        max(font.getlength(line[column]) for line in [headings, *lines]) for column in range(len(headings))
    ]
    size = (round(sum(widths)) + gap * (len(widths) + 1), step * (len(lines) + 3))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 8), heading, font=font, fill="black")
    for number, line in enumerate([headings, *lines]):
        top, edge = step * (number + 1) + 12, float(gap)
        if number % 2 == 0 and number:
            draw.rectangle((0, top - 4, size[0], top + step - 5), fill="#eef2f7")
        for column, (text, width) in enumerate(zip(line, widths, strict=True)):
            # Numbers end where their column ends.
            place = edge if headings[column] == "model" else edge + width - font.getlength(text)
            draw.text((place, top), text, font=font, fill="black" if number else "#3b6ea8")
            edge += width + gap
    with whole(path) as partial:
        sheet.save(partial, format="PNG")


def draw_plot(standings: Sequence[Standing], path: Path) -> None:
    """Draw PSNR on the first set over seconds as a PNG, one panel a scale; areas go by parameters.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullLocator
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "drawing the figure", "train") from error
    scales = sorted({each.scale for each in standings})
    figure = Figure(figsize=(7.6 * len(scales), 4.6), layout="constrained")
    panels = figure.subplots(1, len(scales), squeeze=False, sharex=True)[0]
    for panel, scale in zip(panels, scales, strict=True):
        here = [(each, each.cost) for each in standings if each.scale == scale and each.cost]
        for each, cost in here:
            psnr = each.means[0].scores["psnr"]
            label = f"{each.name}, {each.parameters / 1000:,.0f} K"
            panel.scatter(cost.expense.seconds, psnr, s=20 + each.parameters / 3000, alpha=0.6, label=label)
        baseline = here[0][0].means[0].bicubic["psnr"]
        panel.axhline(baseline, color="gray", linestyle="--", linewidth=1)
        panel.annotate(
            "bicubic", (0.01, baseline), xycoords=("axes fraction", "data"), fontsize=8, va="bottom"
        )
        panel.set(xscale="log", xlabel="seconds for 1280 × 720", title=f"x{scale}")
        panel.set_ylabel(f"PSNR on {here[0][0].means[0].set_name}, dB")
        panel.margins(y=0.2)
        legend = panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
        for handle in legend.legend_handles:
            handle.set_sizes([40])  # areas are read in the figure
    taken = [each.cost.expense.seconds for each in standings if each.cost]
    panels[0].set_xlim(min(taken) / 2, max(taken) * 2)
    panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    panels[0].xaxis.set_minor_locator(NullLocator())
    with whole(path) as partial:
        figure.savefig(partial, dpi=110, format="png")


def facts(standings: Sequence[Standing], conditions: Mapping[str, str]) -> list[str]:
    """Return notes on how a table came about, one a line of Markdown."""
    sets = ", ".join(f"{mean.set_name} ({counted(mean.pictures, 'picture')})" for mean in standings[0].means)
    return [
        f"Sets: {sets}. Cost: of one output of {OUTPUT[1]} × {OUTPUT[0]} pixels, of the first set's first "
        "picture continued mirrored.",
        "",
        *(f"- {name}: {value}" for name, value in conditions.items()),
        *(f"- {line}" for line in uncounted(standings)),
    ]


def uncounted(standings: Sequence[Standing]) -> list[str]:
    """Return a line for each model whose multiply-accumulates are not told, with the reason."""
    return [f"{each.name}: {each.cost.uncounted}" for each in standings if each.cost and each.cost.uncounted]
