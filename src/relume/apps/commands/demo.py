"""`relume demo`: enlarge the bundled photo and show how close the result comes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relume.apps.console import megabytes, progress_bar, say

if TYPE_CHECKING:
    from torch import Tensor

PHOTO = Path(__file__).parent.parent / "photos" / "astronaut.webp"


_FACE = (64, 160, 128)
"""Top, left and side of the photo's detail that is shown magnified, in its own pixels."""


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the pictures; made when missing.")
    ] = Path("demo"),
    name: Annotated[str | None, typer.Option("--name", "-n", help="Model: a name or a weights file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that are there.")] = False,
) -> None:
    """Shrink the bundled photo, enlarge it again and compare with the original."""
    import torch

    from relume.apps.face import DEFAULT_SYSTEM, load
    from relume.core.errors import OutputExistsError, RelumeError
    from relume.core.machine import peak_memory
    from relume.core.pictures import Picture, read, write
    from relume.core.sheets import contact_sheet, save_sheet
    from relume.measures.protocols import protocol
    from relume.nn.resize import enlarge_bicubic, imresize_uint8

    names = ("astronaut-small.png", "astronaut-enlarged.png", "side-by-side.png")
    small_path, large_path, sheet_path = (output / each for each in names)
    for path in (small_path, large_path, sheet_path):
        if os.path.lexists(path) and not overwrite:
            raise OutputExistsError(f"{path}: exists already and was kept; use --overwrite or another -o")

    restorer = load(name or DEFAULT_SYSTEM)
    original = read(PHOTO)
    scale = restorer.scale
    height, width = original.height // scale, original.width // scale
    target = original.pixels[:, : height * scale, : width * scale]
    levels = (target * 255).round().to(torch.uint8)
    low = imresize_uint8(levels, height=height, width=width).float() / 255
    small = Picture(pixels=low, icc=original.icc)

    with progress_bar() as bar:
        task = bar.add_task("enlarging", total=1.0)
        started = time.perf_counter()
        large = restorer(small, advance=lambda done: bar.update(task, completed=done))
        seconds = time.perf_counter() - started
    bicubic = enlarge_bicubic(low, scale=scale)
    measure = protocol("sr-y").measure
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise RelumeError(f"cannot make the folder {output}: {error.strerror}; choose another -o") from error
    ours, theirs = measure(large.pixels, target, scale), measure(bicubic, target, scale)

    write(small, small_path, overwrite=overwrite)
    write(large, large_path, overwrite=overwrite)
    shown = (
        (f"input, {width}x{height}\n(shown x{scale})", _magnified(low, scale)),
        (f"bicubic x{scale}\n{theirs['psnr']:.2f} dB, SSIM {theirs['ssim']:.4f}", bicubic),
        (f"{restorer.name}\n{ours['psnr']:.2f} dB, SSIM {ours['ssim']:.4f}", large.pixels),
        (f"original, {target.shape[2]}x{target.shape[1]}\nphoto: NASA", target),
    )
    top, left, side = _FACE
    details = [("detail", _magnified(each[:, top : top + side, left : left + side], 4)) for _, each in shown]
    save_sheet(contact_sheet([*shown, *details], columns=len(shown)), sheet_path)

    rows = (
        ("model", restorer.name),
        ("engine", str(restorer.engine)),
        ("size", f"{width}x{height} → {large.width}x{large.height}"),
        ("seconds", f"{seconds:.2f}"),
        ("peak memory", megabytes(peak_memory())),
        ("PSNR", f"{ours['psnr']:.2f} dB against the original (bicubic {theirs['psnr']:.2f} dB, "
                 f"{ours['psnr'] - theirs['psnr']:+.2f} dB)"),
        ("SSIM", f"{ours['ssim']:.4f} (bicubic {theirs['ssim']:.4f})"),
        ("pictures", f"{large_path}, {sheet_path}"),
    )  # fmt: skip
    for heading, text in rows:
        say(f"{heading:<12} {text}")


def _magnified(pixels: Tensor, times: int) -> Tensor:
    """Show each pixel of `C H W` as a square."""
    return pixels.repeat_interleave(times, 1).repeat_interleave(times, 2)
