"""JPEG: the real codec, and the same arithmetic in PyTorch for batches, GPUs and gradients.

ITU-T T.81 (the baseline process; quantisation tables of annex K) and libjpeg's conventions: tables scaled
by quality, levels rounded at each stage, chroma averaged over 2 by 2 pixels ("4:2:0") and enlarged again by
a triangle filter, pictures filled up to whole blocks by repeating their border.

The smooth rounding x̄ + (x - x̄)³, with x̄ the nearest whole number, is that of Shin and Song, "JPEG-resistant
Adversarial Images", NIPS 2017 workshop.
Shapes: B batch, C channels (1 or 3), H W size. Pictures are float 0..1.
"""

from __future__ import annotations

import io
import math
from functools import cache
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from relume.data.degradations.base import SameSizeConfig, each_picture
from relume.data.degradations.ranges import QualityRange

# T.81, table K.1 and K.2.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation steps that libjpeg scales by the quality, row by row."""
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# BT.601 over the full range (JFIF); rows Y, Cb, Cr.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_FROM_YCC = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))

GRID = 16
"""Side of what a file codes as a whole, pixels: two blocks of 8, as chroma has half the resolution."""


class JpegConfig(SameSizeConfig):
    """Settings of JPEG compression.

    Attributes:
        quality: libjpeg's, both ends included.
        smooth: compress in PyTorch with a rounding that gradients pass, rather than by the real codec; for
            what is trained through the compression.
    """

    name: Literal["jpeg"] = "jpeg"
    quality: QualityRange = (10, 95)
    smooth: bool = False

    def damage(self) -> JpegCompression:
        """Return the degradation."""
        return JpegCompression(self)


class JpegCompression:
    """Compresses each picture, its blocks beginning anywhere.

    Attributes:
        margin: what a block of patch and border together may spoil.
    """

    margin = GRID

    def __init__(self, config: JpegConfig) -> None:
        self.config = config

    def __call__(self, high: Tensor, *, generator: torch.Generator) -> Tensor:
        return each_picture(high, generator, self._damage)

    def _damage(self, picture: Tensor, random: torch.Generator) -> Tensor:
        low, high = self.config.quality
        quality = int(torch.randint(low, high + 1, (), generator=random))
        top, left = torch.randint(GRID, (2,), generator=random).tolist()
        if self.config.smooth:
            return jpeg(picture.unsqueeze(0), quality, smooth=True, offset=(top, left))[0]
        return jpeg_codec(picture, quality, offset=(top, left))


def jpeg_codec(picture: Tensor, quality: int, *, offset: tuple[int, int] = (0, 0)) -> Tensor:
    """Compress by the real codec (libjpeg-turbo through Pillow, chroma 4:2:0) and decompress.

    Args:
        picture: `C H W`; clamped and rounded to 8 bits.
        quality: libjpeg's, 1 (worst) to 100.
        offset: row and column, of `GRID`, at which the picture begins within the grid of blocks: a patch
            cut out of a photo seldom begins with a block.

    Returns:
        The same shape, whole 8-bit levels, float32 0..1 on the same device.
    """
    height, width = picture.shape[-2:]
    top, left = offset
    levels = picture.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    array = np.pad(levels.movedim(0, -1).numpy(), ((top, 0), (left, 0), (0, 0)), mode="edge")
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality, subsampling=2)
    decoded = torch.from_numpy(np.array(Image.open(file))).reshape(array.shape).movedim(-1, 0)
    return decoded[:, top:, left:].to(picture.device, torch.float32).div_(255).reshape(-1, height, width)


def jpeg(
    pictures: Tensor, quality: Tensor | float, *, smooth: bool = False, offset: tuple[int, int] = (0, 0)
) -> Tensor:
    """Compress and decompress in PyTorch, on average within half a level of the real codec.

    Args:
        pictures: `B C H W`, clamped to 0..1.
        quality: 1 (worst) to 100, one for all or `B`; needs not be whole.
        smooth: round coefficients so that gradients pass, and nothing else; else all that a file would.
        offset: as for `jpeg_codec`.

    Returns:
        The same shape and type, 0..1.
    """
    height, width = pictures.shape[-2:]
    top, left = offset
    levels = pictures.clamp(0, 1) * 255
    to_pixel = _identity if smooth else _to_pixel
    luma_table, chroma_table = tables(quality, device=pictures.device)
    fill = (left, -(left + width) % GRID, top, -(top + height) % GRID)
    levels = F.pad(levels, fill, mode="replicate")
    if not smooth:
        levels = levels.round()
    rows, columns = top + height, left + width
    if pictures.shape[-3] == 1:
        decoded = to_pixel(_coded(levels, luma_table, smooth))
    else:
        ycc = torch.einsum("kc,bchw->bkhw", levels.new_tensor(_TO_YCC), levels)
        ycc[:, 1:] += 128
        ycc = to_pixel(ycc)
        luma = to_pixel(_coded(ycc[:, :1], luma_table, smooth))
        chroma = to_pixel(F.avg_pool2d(ycc[:, 1:], 2), (3 / 8, 1 / 2))
        chroma = to_pixel(_coded(chroma, chroma_table, smooth))
        # What fills the last blocks takes no part in enlarging.
        chroma = chroma[..., : math.ceil(rows / 2), : math.ceil(columns / 2)]
        # libjpeg smooths only what is wider than two samples.
        mode = "bilinear" if chroma.shape[-1] > 2 else "nearest"
        chroma = to_pixel(F.interpolate(chroma, scale_factor=2, mode=mode), (1 / 2, 7 / 16)) - 128
        whole = torch.cat([luma[..., :rows, :columns], chroma[..., :rows, :columns]], 1)
        decoded = to_pixel(torch.einsum("ck,bkhw->bchw", levels.new_tensor(_FROM_YCC), whole))
    return decoded[..., top:rows, left:columns].clamp(0, 255) / 255


def tables(quality: Tensor | float, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the quantisation tables of luma and chroma, each `B 1 8 8`, in natural order.

    Args:
        quality: libjpeg's, one or `B`.
        device: where they are to be.
    """
    quality = torch.as_tensor(quality, dtype=torch.float32, device=device).reshape(-1, 1, 1, 1).clamp(1, 100)
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    luma, chroma = (
        ((torch.tensor(table, dtype=torch.float32, device=device) * percent + 50) / 100).floor().clamp(1, 255)
        for table in (LUMINANCE, _CHROMA)
    )
    return luma, chroma


def smooth_round(x: Tensor) -> Tensor:
    """Round nearly: x̄ + (x - x̄)³, whose slope is 3 (x - x̄)² and so zero only at whole numbers."""
    whole = x.detach().round()
    return whole + (x - whole) ** 3


def _coded(plane: Tensor, table: Tensor, smooth: bool) -> Tensor:
    """Transform, quantise and transform back; `B C H W` of whole blocks, levels 0..255."""
    batch, channels, height, width = plane.shape
    basis = _cosines().to(plane)
    blocks = (plane - 128).reshape(batch, channels, height // 8, 8, width // 8, 8)
    # The pixels of a block stand in dimensions 3 and 5.
    spectrum = torch.einsum("ui,bcyixj,vj->bcyuxv", basis, blocks, basis)
    steps = table[:, :, None, :, None, :]
    if smooth:
        levels = smooth_round(spectrum / steps) * steps
    else:
        # libjpeg's transform has three bits after the point.
        levels = _half_away((spectrum * 8).round() / 8 / steps) * steps
    blocks = torch.einsum("ui,bcyuxv,vj->bcyixj", basis, levels, basis)
    return blocks.reshape(plane.shape) + 128


@cache
def _cosines() -> Tensor:
    """Return the orthonormal cosine transform, `8 8`: frequency, place."""
    # Made under inference_mode, it could not take part in a later backward pass.
    with torch.inference_mode(False):
        place = (torch.arange(8, dtype=torch.float64) + 0.5) * math.pi / 8
        basis = torch.cos(torch.arange(8, dtype=torch.float64)[:, None] * place) / 2
        basis[0] /= math.sqrt(2)
        return basis


def _half_away(x: Tensor) -> Tensor:
    """Round halves away from zero; the mean of a block often is one, less an error of rounding."""
    return x.sign() * (x.abs() + 0.50001).floor()


def _identity(plane: Tensor, up: tuple[float, float] = (0.5, 0.5)) -> Tensor:  # noqa: ARG001
    return plane


def _to_pixel(plane: Tensor, up: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """Round to whole levels: even and odd columns by adding so much first, as libjpeg keeps means level."""
    columns = plane.shape[-1]
    added = plane.new_tensor(up).repeat(-(-columns // 2))[:columns]
    return (plane + added + 1e-4).floor().clamp(0, 255)


CONFIG = JpegConfig
