"""Protocols: what exactly is measured when a paper says "PSNR" or "SSIM".

Two figures compare only under one protocol, so every figure we print carries its name.

- `sr-y`, what super-resolution tables report: output clamped and rounded to 8 bits, a border of
  `scale` pixels cut, luma of BT.601 in 16 .. 235, PSNR (peak 255) and the SSIM of `ssim.py`.
- `sr-rgb`: the same on RGB. PSNR comes from one mean squared error over the three channels, SSIM is
  the mean of the channels' SSIM, as in BasicSR.

A picture of one channel is measured as it is, under both: it is its own luma, in full range, as in
MATLAB scripts and BasicSR. A gray photo replicated to three channels is RGB to `sr-y`, whose luma is
219/255 as steep: 1.32 dB more for the same error. BasicSR does so too, and our benchmarks follow it.

- `cube`, what tables of hyperspectral super-resolution report (`spectra.py`): floats, which are not
  rounded, nothing cut, means of the bands' PSNR (peak 1) and SSIM, and the angle between spectra.

Shapes: C channels (1 or 3; the bands of a cube), H W picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from relume.core.errors import UnknownNameError
from relume.measures.psnr import psnr
from relume.measures.spectra import measure_cube
from relume.measures.ssim import WINDOW, ssim
from relume.nn.colour import rgb_to_y

_PEAK = 255.0


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to compare an enlarged picture with its target.

    Attributes:
        name: what the command line and the results call it.
        description: one line that says what is measured.
        planes: picks or mixes the channels to measure, C × H × W in 0 .. 255 to any planes × H × W; None
            measures cubes, and nothing else.
    """

    name: str
    description: str
    planes: Callable[[Tensor], Tensor] | None

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what `measure` returns."""
        return ("psnr", "ssim", "sam") if self.of_cubes else ("psnr", "ssim")

    def lowest_is_best(self, figure: str) -> bool:
        """Whether less of a figure is better: an angle is an error, decibels and likeness are not."""
        return figure == "sam"

    @property
    def of_cubes(self) -> bool:
        """Whether cubes are measured, rather than pictures."""
        return self.planes is None

    def measure(self, output: Tensor, target: Tensor, scale: int) -> dict[str, float]:
        """Compare one output with its target.

        Everything is worked out on the CPU in float64, so that a figure does not depend on the
        device that made the output.

        Args:
            output: C × H × W in 0 .. 1 (clamped and rounded to 8 bits here), C = 1 or 3; of a cube any C,
                clamped alone.
            target: C × H × W in 0 .. 1, rounded to 8 bits too, but for a cube.
            scale: how many pixels of border to cut on each side.

        Returns:
            `psnr` in dB (infinity where equal) and `ssim` (1 where equal); of a cube also `sam` in degrees
            (0 where equal).

        Raises:
            ValueError: the shapes differ, are not C × H × W, or leave less than SSIM's window.
        """
        if output.shape != target.shape:
            raise ValueError(f"output is {tuple(output.shape)} but target is {tuple(target.shape)}")
        if output.ndim != 3 or (self.planes is not None and output.shape[0] not in (1, 3)):
            raise ValueError(f"a picture is C × H × W with 1 or 3 channels, not {tuple(output.shape)}")
        if min(output.shape[-2:]) < self.smallest_side(scale):
            raise ValueError(
                f"{self.name} at ×{scale} needs {self.smallest_side(scale)} pixels a side, "
                f"not {tuple(output.shape)}"
            )
        if self.planes is None:
            return measure_cube(output.detach().cpu(), target.detach().cpu())
        first, second = (self.planes(_cut(_levels(picture), scale)) for picture in (output, target))
        return {"psnr": psnr(first, second, peak=_PEAK), "ssim": ssim(first, second, peak=_PEAK)}

    def smallest_side(self, scale: int) -> int:
        """The shortest side in pixels that a target may have at this scale."""
        return WINDOW if self.of_cubes else WINDOW + 2 * scale


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UnknownNameError: there is none; the nearest name is proposed.
    """
    try:
        return _by_name()[name]
    except KeyError:
        raise UnknownNameError("protocol", name, _by_name()) from None


def _by_name() -> dict[str, Protocol]:
    """Every protocol defined in this file; the definition itself is the entry in the list."""
    return {value.name: value for value in globals().values() if isinstance(value, Protocol)}


def _levels(picture: Tensor) -> Tensor:
    """0 .. 1 to whole 8-bit levels 0 .. 255, as saving the picture would."""
    return picture.detach().cpu().to(torch.float64).clamp(0, 1).mul(_PEAK).round()


def _cut(picture: Tensor, border: int) -> Tensor:
    """Take `border` pixels off each side; what lies there is mostly a matter of padding."""
    height, width = picture.shape[-2:]
    return picture[..., border : height - border, border : width - border]


def _luma(levels: Tensor) -> Tensor:
    return rgb_to_y(levels, peak=_PEAK) if levels.shape[0] == 3 else levels


def _as_is(levels: Tensor) -> Tensor:
    return levels


SR_Y = Protocol(
    name="sr-y",
    description="8-bit output, border of `scale` cut, BT.601 luma (16..235), PSNR and MATLAB SSIM",
    planes=_luma,
)

SR_RGB = Protocol(
    name="sr-rgb",
    description="8-bit output, border of `scale` cut, RGB, PSNR of their joint error, mean of their SSIM",
    planes=_as_is,
)

CUBE = Protocol(
    name="cube",
    description="hyperspectral cubes: floats in 0..1, means of the bands' PSNR and SSIM, SAM in degrees",
    planes=None,
)
