"""Photos, and known damage of known strength."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import relume
from relume.core.pictures import read
from relume.nn.resize import imresize

BUNDLED = Path(relume.__file__).with_name("apps") / "photos" / "astronaut.webp"
SHARED = (
    "sr/Urban100_HR_10/img_001.webp", "sr/Set14_HR/barbara.webp", "sr/Set14_HR/bridge.png",
    "train/BSDS500/val/41033.jpg", "train/BSDS500/val/241048.jpg",
)  # fmt: skip
"""Photos that NIQE's model was not fitted to."""


def photo(path: Path) -> Tensor:
    """At most 480 × 480 of a photo, whole 8-bit levels in 0 .. 1."""
    return read(path).pixels[:, :480, :480].expand(3, -1, -1).double()


def levels(x: Tensor) -> Tensor:
    return x.clamp(0, 1).mul(255).round().div(255)


def blurred(x: Tensor, sigma: float) -> Tensor:
    reach = int(4 * sigma + 1)
    place = torch.arange(-reach, reach + 1, dtype=x.dtype)
    window = torch.exp(-place.square() / (2 * sigma**2))
    window = (window / window.sum())[None, None, None]
    x = x[:, None]
    for _ in range(2):
        padded = torch.nn.functional.pad(x, (reach, reach, 0, 0), mode="reflect")
        x = torch.nn.functional.conv2d(padded, window).mT
    return levels(x[:, 0])


def noisy(x: Tensor, deviation: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return levels(x + torch.randn(x.shape, generator=generator, dtype=x.dtype) * deviation / 255)


def compressed(x: Tensor, quality: float) -> Tensor:
    array = x.mul(255).byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "JPEG", quality=int(quality))
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).double() / 255


def shrunk(x: Tensor, times: float) -> Tensor:
    """Down and up again, bicubic."""
    height, width = x.shape[1:]
    small = levels(imresize(x, height=round(height / times), width=round(width / times)))
    return levels(imresize(small, height=height, width=width))


Damage = Callable[[Tensor, float], Tensor]
