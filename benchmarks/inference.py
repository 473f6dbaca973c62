"""Seconds of CFSR inference on this CPU, engine beside engine, in one run.

    python benchmarks/inference.py [--threads 2] [--scale 4] [--sizes 320x180 640x360 1280x720]
        [--authors-code cfsr_arch.py --authors-weights CFSR_x4.pth] [--authors-onnx CFSRx4.onnx]

The baseline is the authors' module in eager PyTorch; the peer to beat is OpenVINO on the authors' ONNX
file. Both belong to the authors and are given by path; where they are not, the same network written in
their order of operations (contiguous memory, norm written out, nothing folded) stands in, and the table
says so. All run the same weights and their outputs are compared with the baseline's.

Rounds are interleaved and the fastest of each is taken, as the machine may be shared. "peak" is the share
of the fastest matrix product that PyTorch reaches here between the rounds, counting each multiplication
and addition of the network's convolutions once.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from authors import trained
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from relume.infer.choosing import check
from relume.infer.engines import engines
from relume.infer.engines.base import EngineError, Place
from relume.models import zoo
from relume.nn.network import Network
from relume.nn.norms import LayerNorm2d

Run = Callable[[Tensor], Tensor]


class PlainNorm(nn.Module):
    """The layer norm over channels in the authors' order of operations."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Contiguous(nn.Module):
    """A convolution that gives contiguous memory, which what follows then keeps."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.contiguous()).contiguous()


def stand_in(network: Network) -> nn.Module:
    """Return the network as its authors order it, from our own layers."""
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LayerNorm2d):
                setattr(module, name, PlainNorm(child))
    plain.shallow = Contiguous(plain.shallow)
    return plain.eval()


def openvino_on(path: Path, threads: int, height: int, width: int) -> Run:
    """Return OpenVINO on an ONNX file, in float32, for one size: its best case."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([1, 3, height, width])
    hints = {
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    request = core.compile_model(model, "CPU", hints).create_infer_request()

    def run(low: Tensor) -> Tensor:
        request.infer([low.numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data)

    return run


def operations(network: Network) -> int:
    """Count the multiplications of all convolutions for one input pixel (one addition goes with each)."""
    return sum(layer.weight.numel() for layer in network.modules() if isinstance(layer, nn.Conv2d))


def peak(threads: int) -> float:
    """Return the multiplications a second of the fastest matrix product found, float32."""
    torch.set_num_threads(threads)
    best = 0.0
    for rows, inner, columns in ((2048, 2048, 2048), (4096, 256, 256), (1024, 1024, 1024)):
        left, right = torch.randn(rows, inner), torch.randn(inner, columns)
        layer = nn.Conv2d(inner, columns, 1).eval().requires_grad_(False)
        side = math.isqrt(rows)
        picture = torch.randn(1, inner, side, side).contiguous(memory_format=torch.channels_last)
        for work, count in (
            (lambda a=left, b=right: a @ b, rows * inner * columns),
            (lambda a=layer, b=picture: a(b), side * side * inner * columns),
        ):
            work()
            for _ in range(5):
                started = time.perf_counter()
                work()
                best = max(best, count / (time.perf_counter() - started))
    return best


def candidates(network: Network, options: argparse.Namespace, height: int, width: int) -> dict[str, Run]:
    """Return what is to be timed, the baseline first."""
    place = Place(threads=options.threads)
    runs: dict[str, Run] = {}
    if options.authors_code and options.authors_weights:
        runs["authors' module, eager PyTorch"] = trained(
            options.authors_code, options.authors_weights, options.scale
        )
    else:
        runs["stand-in for the authors' module, eager PyTorch"] = stand_in(network)
    try:
        if options.authors_onnx:
            runs["OpenVINO on the authors' ONNX file"] = openvino_on(
                options.authors_onnx, options.threads, height, width
            )
        else:
            path = exported_stand_in(network, options.folder)
            runs["OpenVINO on an unfolded export (stand-in)"] = openvino_on(
                path, options.threads, height, width
            )
    except ImportError:
        print("OpenVINO is not installed: pip install 'relume[openvino]'")
    for name in options.engines or engines():
        kind = engines()[name]
        if reason := kind.missing() or kind.refuses(network, place):
            print(f"{name}: {reason}")
            continue
        if kind.slow_to_make and not options.engines:
            continue
        try:
            engine = kind(network, place)
            check(engine, network)
        except EngineError as error:
            print(f"{name}: {error}")
            continue
        runs[f"relume, --engine {name}"] = engine
    return runs


def exported_stand_in(network: Network, folder: Path) -> Path:
    """Export the stand-in to ONNX, unfolded."""
    path = folder / "stand-in.onnx"
    if not path.is_file():
        free = torch.export.Dim.DYNAMIC
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                stand_in(network), (torch.rand(1, 3, 24, 20),), dynamo=True, verbose=False,
                dynamic_shapes=({2: free, 3: free},), opset_version=18,
            )  # fmt: skip
        assert program is not None
        program.save(path)
    return path


def compare(
    runs: dict[str, Run], height: int, width: int, rounds: int, threads: int
) -> tuple[dict[str, tuple[float, float]], float]:
    """Return the seconds of each with its largest difference from the first, and the peak in between."""
    low = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    best = dict.fromkeys(runs, math.inf)
    differences: dict[str, float] = {}
    reference: Tensor | None = None
    fastest = 0.0
    with torch.inference_mode():
        for round_ in range(rounds + 1):
            fastest = max(fastest, peak(threads))
            for name, run in runs.items():
                time.sleep(0.2)  # threads of the one before may still be spinning
                started = time.perf_counter()
                output = run(low)
                seconds = time.perf_counter() - started
                if round_:  # the first round warms up
                    best[name] = min(best[name], seconds)
                    continue
                reference = output.clone() if reference is None else reference
                differences[name] = (output - reference).abs().max().item()
    return {name: (best[name], differences[name]) for name in runs}, fastest


def main() -> None:
    """Time and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("threads", os.cpu_count() or 1), ("scale", 4), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sizes", nargs="+", default=["320x180", "640x360", "1280x720"])
    parser.add_argument("--engines", nargs="+", help="default: all but those that must be compiled first")
    for name in ("authors-code", "authors-weights", "authors-onnx"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = options.authors_weights
    network, _ = zoo.load(weights or f"cfsr-x{options.scale}")
    console = Console()
    console.print(f"CFSR x{options.scale}, {options.threads} threads, torch {torch.__version__}")
    fastest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        for size in options.sizes:
            width, height = map(int, size.split("x"))
            runs = candidates(network, options, height, width)
            results, reached = compare(runs, height, width, options.rounds, options.threads)
            fastest = max(fastest, reached)
            console.print(_table(size, results, operations(network) * height * width / fastest))
            console.print(f"peak: matrix products at {2 * fastest / 1e9:.0f} GFLOP/s")


def _table(size: str, results: dict[str, tuple[float, float]], ideal: float) -> Table:
    table = Table(title=f"{size} input", title_justify="left")
    table.add_column("way")
    for heading in ("seconds", "of the baseline", "of OpenVINO", "peak", "differs by"):
        table.add_column(heading, justify="right")
    first = next(iter(results.values()))[0]
    peer = next((seconds for name, (seconds, _) in results.items() if name.startswith("OpenVINO")), math.nan)
    for name, (seconds, difference) in results.items():
        table.add_row(
            name, f"{seconds:.3f}", f"{seconds / first:.2f}", f"{seconds / peer:.2f}",
            f"{100 * ideal / seconds:.0f} %", f"{difference:.0e}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
