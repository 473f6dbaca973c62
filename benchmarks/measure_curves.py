"""How the measures without a reference follow known damage: the curves of docs/measures.md.

Run: python benchmarks/measure_curves.py PHOTO … -o docs/images/measures.png
Each curve is one photo, the black one their mean; the first point of each is the photo as it is.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageFilter

from relume.measures.blockiness import blockiness
from relume.measures.blur import blur
from relume.measures.gray import gray_levels
from relume.measures.niqe import niqe

mpl.use("Agg")
from matplotlib import pyplot as plt

_SIDE = 640


def _noisy(image: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.round(np.asarray(image) + noise), 0, 255).astype(np.uint8))


def _compressed(image: Image.Image, quality: float) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return Image.open(file).convert("RGB")


def _shrunk(image: Image.Image, times: float) -> Image.Image:
    small = image.resize((round(image.width / times), round(image.height / times)), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


_DAMAGE: dict[str, tuple[Callable[[Image.Image, float], Image.Image], list[float]]] = {
    "Gaussian blur, sigma": (
        lambda image, sigma: image.filter(ImageFilter.GaussianBlur(sigma)), [0.5, 1, 1.5, 2, 3, 4]
    ),
    "noise, deviation of 255": (_noisy, [2, 5, 10, 15, 20, 30]),
    "JPEG, quality": (_compressed, [95, 90, 75, 50, 30, 10]),
    "bicubic down and up, times": (_shrunk, [1.5, 2, 3, 4, 6]),
}  # fmt: skip
_MEASURES = {"NIQE": niqe, "blur": blur, "blockiness": lambda gray: blockiness(gray).strength}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    photos = [Image.open(path).convert("RGB") for path in given.photos]
    photos = [image.crop((0, 0, min(image.width, _SIDE), min(image.height, _SIDE))) for image in photos]
    seconds, pixels = dict.fromkeys(_MEASURES, 0.0), 0
    figure, axes = plt.subplots(
        len(_MEASURES), len(_DAMAGE), figsize=(12, 7), sharey="row", constrained_layout=True
    )
    for column, (title, (damage, strengths)) in enumerate(_DAMAGE.items()):
        values = np.empty((len(_MEASURES), len(photos), 1 + len(strengths)))
        for number, image in enumerate(photos):
            for step, picture in enumerate([image, *(damage(image, each) for each in strengths)]):
                gray = gray_levels(torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255)
                pixels += gray.numel()
                for row, (name, measure) in enumerate(_MEASURES.items()):
                    started = time.perf_counter()
                    values[row, number, step] = measure(gray)
                    seconds[name] += time.perf_counter() - started
        for row, name in enumerate(_MEASURES):
            axis = axes[row, column]
            axis.plot(values[row].T, color="tab:blue", alpha=0.3, linewidth=0.8)
            axis.plot(values[row].mean(0), color="black", marker="o", markersize=3)
            axis.set_xticks(range(1 + len(strengths)), ["none", *(f"{each:g}" for each in strengths)])
            axis.grid(alpha=0.3)
            if row == len(_MEASURES) - 1:
                axis.set_xlabel(title)
            if column == 0:
                axis.set_ylabel(name)
            rising = (np.diff(values[row], axis=1) >= 0).all(1).mean()
            print(f"{title}: {name}: mean {values[row].mean(0).round(3)}, rises throughout: {rising:.0%}")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    with Image.open(drawn) as image:  # few colours, so that the file is small
        image.convert("RGB").quantize(48, dither=Image.Dither.NONE).save(given.output, optimize=True)
    for name, spent in seconds.items():
        print(f"{name}: {spent / pixels * 1e9:.0f} ms a megapixel")


if __name__ == "__main__":
    main()
