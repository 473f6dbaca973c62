"""What a routed model gives for the time it may take: PSNR and seconds at several efforts.

    python benchmarks/effort_curve.py --data Set14=DIR [--data …] [--model cfsr-routed-x4]
        [--baseline cfsr-x4] [--engine native] [--threads 1] [--picture docs/images/effort-curve.png]

All efforts and the baseline, the plain network, take turns on each picture; what counts is the CPU
time of the process in the quickest of the rounds, as the machine may be shared. Both run on the same
engine: their trained form in torch, their folded form in torch, or that by the native kernels. PSNR
is that of `relume evaluate`, protocol sr-y.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from relume.data.benchmarks import Pair, find_pairs
from relume.measures.protocols import protocol
from relume.models import zoo
from relume.models.super_resolution.routed import Routed
from relume.nn.convformer import FoldedConvFormer
from relume.nn.native.convformer import NativeConvFormer
from relume.nn.network import Network

EFFORTS = (0.0, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 1.0)


def load(name: str, options: argparse.Namespace) -> Callable[[Tensor], Tensor]:
    """Load a model in the form in which it is to be timed; a routed one stays a network."""
    network, _ = zoo.load(name)
    if options.engine == "torch":
        return network
    large = network.heavy if isinstance(network, Routed) else network
    folded = large.folded()
    if options.engine == "native" and isinstance(folded, FoldedConvFormer):
        folded = NativeConvFormer(folded, threads=options.threads)
    return network.with_heavy(folded) if isinstance(network, Routed) else folded


def timed(network: Callable[[Tensor], Tensor], low: Tensor, rounds: int) -> tuple[Tensor, float]:
    """Return the output and the CPU seconds of the quickest round."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        output = network(low)
        best = min(best, time.process_time() - started)
    return output, best


Figures = dict[str, list[float]]
"""PSNR, seconds and heavy share of each picture."""


def measure(text: str, options: argparse.Namespace) -> dict[str, Figures]:
    """Return the figures of one set for the baseline and for each effort."""
    routed, baseline = load(options.model, options), load(options.baseline, options)
    if not (isinstance(routed, Network) and routed.contract.effort):
        raise SystemExit(f"{options.model} has no choice of effort")
    scale, measured = routed.contract.scale, protocol("sr-y")
    found: dict[str, Figures] = defaultdict(lambda: defaultdict(list))

    def note(way: str, network: Callable[[Tensor], Tensor], pair: Pair, heavy: float) -> None:
        output, seconds = timed(network, pair.low[None], options.rounds)
        found[way]["psnr"].append(measured.measure(output[0], pair.high, scale)["psnr"])
        found[way]["seconds"].append(seconds)
        found[way]["heavy"].append(heavy)

    called, _, folder = text.rpartition("=")
    for pair in find_pairs(Path(folder), scale=scale, name=called or None):
        baseline(pair.low[None])  # the first call of a size is slower
        note("baseline", baseline, pair, 1.0)
        for effort in EFFORTS:
            routed.effort = effort
            note(f"{effort:g}", routed, pair, routed.routes(pair.low[None]).float().mean().item())
    return found


def table(text: str, found: dict[str, Figures], options: argparse.Namespace) -> Table:
    """Return one set's figures as a table."""
    title = (
        f"{Path(options.model).stem} on {text.partition('=')[0]}, baseline {Path(options.baseline).stem}, "
    )
    title += f"engine {options.engine}, {options.threads} threads, torch {torch.__version__}"
    result = Table(title=title, title_justify="left")
    for heading in ("effort", "PSNR", "against baseline", "CPU s/picture", "of baseline", "heavy pixels"):
        result.add_column(heading, justify="right")
    plain = found["baseline"]
    for way, values in found.items():
        result.add_row(
            way,
            f"{fmean(values['psnr']):.3f}",
            f"{fmean(values['psnr']) - fmean(plain['psnr']):+.3f}",
            f"{fmean(values['seconds']):.3f}",
            f"{sum(values['seconds']) / sum(plain['seconds']):.0%}",
            f"{fmean(values['heavy']):.0%}",
        )
    return result


def draw(sets: dict[str, dict[str, Figures]], options: argparse.Namespace) -> None:
    """Draw for each set what PSNR is lost over the share of the baseline's time."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for text, found in sets.items():
        plain = found.pop("baseline")
        shares = [100 * sum(values["seconds"]) / sum(plain["seconds"]) for values in found.values()]
        losses = [fmean(values["psnr"]) - fmean(plain["psnr"]) for values in found.values()]
        axes.plot(shares, losses, "o-", label=text.partition("=")[0])
        for way, share, loss in zip(found, shares, losses, strict=True):
            axes.annotate(way, (share, loss), xytext=(5, -9), textcoords="offset points", fontsize=7)
    axes.plot([100], [0], "ks", label=Path(options.baseline).stem)
    axes.set_title(f"{Path(options.model).stem}: each point is an effort")
    axes.set_xlabel(f"CPU time, % of {Path(options.baseline).stem} (engine: {options.engine})")
    axes.set_ylabel(f"PSNR (Y) against {Path(options.baseline).stem}, dB")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.picture, dpi=110)


def main() -> None:
    """Measure, print the tables, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="a benchmark set, NAME=FOLDER")
    parser.add_argument("--model", default="cfsr-routed-x4")
    parser.add_argument("--baseline", default="cfsr-x4")
    parser.add_argument("--engine", choices=("torch", "folded", "native"), default="folded")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sets = {}
    with torch.inference_mode():
        for text in options.data:
            sets[text] = measure(text, options)
            Console(width=120).print(table(text, sets[text], options))
    if options.picture:
        draw(sets, options)


if __name__ == "__main__":
    main()
