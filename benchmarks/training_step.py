"""Seconds of one CFSR training step: ours beside the plain ways of writing it, in one run.

    python benchmarks/training_step.py [--threads 2] [--batch 16] [--patch 32] [--scale 4]
        [--authors-code cfsr_arch.py]

The baseline is the plain way: contiguous memory, the layer norm written out, the edge branches as
four convolutions, and PyTorch's own gradient of the large depthwise kernel. With the authors' file their
module is measured too, and its gradients are compared with ours. Rounds are interleaved
and the fastest of each is taken, as the machine may be shared.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from authors import untrained
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from relume.models.super_resolution.cfsr import CFSR, CFSRConfig, from_official
from relume.nn.depthwise import LargeDepthwiseConv2d
from relume.nn.edges import EdgeConv
from relume.nn.norms import LayerNorm2d


class PlainNorm(nn.Module):
    """The layer norm over channels as it is usually written."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class PlainEdges(nn.Module):
    """The four branches convolved one after the other."""

    def __init__(self, layer: EdgeConv) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        output = layer.conv(x)
        for strength, mask, bias in zip(layer.strengths, layer.masks, layer.biases, strict=True):
            output = output + F.conv2d(x, strength * mask, bias, padding=1, groups=x.shape[1])
        return output


class PlainDepthwise(nn.Module):
    """The large kernel with PyTorch's own gradient."""

    def __init__(self, layer: LargeDepthwiseConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return nn.Conv2d.forward(self.layer, x)


class Contiguous(nn.Module):
    """The first convolution, giving contiguous memory, which what follows then keeps."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.contiguous()).contiguous()


PLAIN: dict[type[nn.Module], Callable[..., nn.Module]] = {
    LayerNorm2d: PlainNorm,
    EdgeConv: PlainEdges,
    LargeDepthwiseConv2d: PlainDepthwise,
}


def network(config: CFSRConfig, plain: tuple[type[nn.Module], ...], *, contiguous: bool) -> nn.Module:
    """Build the network with some of its layers written the plain way."""
    torch.manual_seed(0)
    model = CFSR(config)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in plain:
                setattr(module, name, PLAIN[type(child)](child))
    if contiguous:
        model.shallow = Contiguous(model.shallow)  # type: ignore[assignment]
    return model


@dataclass(frozen=True)
class Differences:
    """How far gradients are apart: the largest over all parameters, each as a share of its largest gradient.

    Attributes:
        exact: ours from the authors', both in float64.
        both: the same in float32.
        ours: ours in float32 from those in float64.
        theirs: theirs in float32 from those in float64.
    """

    exact: float
    both: float
    ours: float
    theirs: float


def gradients(model: nn.Module, low: Tensor, high: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the gradients of an L1 step of a copy of the model in a type, by the model's names."""
    model = copy.deepcopy(model).to(dtype)
    F.l1_loss(model(low.to(dtype)), high.to(dtype)).backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def apart(ones: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    """Return the largest difference of two sets of gradients, each as a share of the other's largest."""
    return max(
        ((value - others[name]).abs().max() / others[name].abs().max()).item() for name, value in ones.items()
    )


def beside_authors(code: Path, scale: int, low: Tensor, high: Tensor) -> tuple[nn.Module, Differences]:
    """Return the authors' training form, and how its gradients and ours of the same weights differ."""
    theirs = untrained(code, scale, merged=False)
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            if "layer_scale" in name:
                value.fill_(0.5)  # as built, the layers are all but switched off
    official = from_official(theirs.state_dict())
    assert official is not None
    ours = CFSR(official.config)  # type: ignore[arg-type]
    ours.load_state_dict(dict(official.state))

    def both(dtype: torch.dtype) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
        renamed = from_official({**theirs.state_dict(), **gradients(theirs, low, high, dtype)})
        assert renamed is not None
        return gradients(ours, low, high, dtype), renamed.state

    (mine, other), (exact_mine, exact_other) = both(torch.float32), both(torch.float64)
    return theirs, Differences(
        exact=apart(exact_mine, exact_other),
        both=apart(mine, other),
        ours=apart(mine, exact_mine),
        theirs=apart({name: other[name] for name in mine}, exact_other),
    )


def step(model: nn.Module, optimiser: torch.optim.Optimizer, low: Tensor, high: Tensor) -> None:
    """One training step with L1."""
    optimiser.zero_grad(set_to_none=True)
    F.l1_loss(model(low), high).backward()
    optimiser.step()


def main() -> None:
    """Time the ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("threads", 2), ("batch", 16), ("patch", 32), ("scale", 4), ("rounds", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--authors-code", type=Path, help="the authors' cfsr_arch.py")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = CFSRConfig(scale=options.scale)
    everything = (LayerNorm2d, EdgeConv, LargeDepthwiseConv2d)
    ways: dict[str, tuple[nn.Module, bool]] = {
        "plain: contiguous, written-out norm, four edge convolutions": (
            network(config, everything, contiguous=True), False,
        ),
        "+ channels last": (network(config, everything, contiguous=False), False),
        "+ fused norm over a permuted view": (
            network(config, (EdgeConv, LargeDepthwiseConv2d), contiguous=False), False,
        ),
        "+ edge kernels summed before convolving": (
            network(config, (LargeDepthwiseConv2d,), contiguous=False), False,
        ),
        "+ blockwise gradient of the 9x9 kernel": (network(config, (), contiguous=False), False),
        "+ fused Adam (relume train)": (network(config, (), contiguous=False), True),
    }  # fmt: skip
    low = torch.rand(options.batch, 3, options.patch, options.patch)
    high = torch.rand(options.batch, 3, *(options.patch * options.scale,) * 2)
    if options.authors_code:
        theirs, difference = beside_authors(options.authors_code, options.scale, low, high)
        ways["the authors' module"] = theirs, False
    optimisers = {
        name: torch.optim.Adam(model.parameters(), fused=fused) for name, (model, fused) in ways.items()
    }
    best = dict.fromkeys(ways, float("inf"))
    for round_ in range(options.rounds + 1):
        for name, (model, _) in ways.items():
            started = time.perf_counter()
            step(model, optimisers[name], low, high)
            if round_:  # the first round warms up
                best[name] = min(best[name], time.perf_counter() - started)
    table = Table(
        title=f"CFSR x{options.scale}, {options.batch} patches of {options.patch}x{options.patch}, "
        f"{options.threads} threads, torch {torch.__version__}",
        title_justify="left",
    )
    table.add_column("way, each with those above")
    table.add_column("s/step", justify="right")
    table.add_column("share of plain", justify="right")
    first = next(iter(best.values()))
    for name, seconds in best.items():
        table.add_row(name, f"{seconds:.3f}", f"{seconds / first:.2f}")
    console = Console()
    console.print(table)
    if options.authors_code:
        last = best["the authors' module"] / best["+ fused Adam (relume train)"]
        console.print(
            f"the authors' module takes {last:.2f} times ours; gradients agree to {difference.exact:.1e} in "
            f"float64 and {difference.both:.1e} in float32, where rounding alone moves ours by "
            f"{difference.ours:.1e} and theirs by {difference.theirs:.1e}"
        )


if __name__ == "__main__":
    main()
