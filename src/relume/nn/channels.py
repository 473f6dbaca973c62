"""How a picture goes through a model that takes other channels than the picture has.

| picture | model | what is done |
|---|---|---|
| RGB | of luma (`Contract.luma`) | the model enlarges Y, MATLAB's bicubic Cb and Cr |
| gray | of luma | the model enlarges the Y that the same picture has as RGB |
| RGB | of one channel otherwise | each channel by itself |
| gray | of RGB | all channels alike, and their mean taken |

Using, evaluating and validating a model all go this way, so a figure tells of what users get.

Shapes: B batch, C channels of the picture, h w input, H W output.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from relume.nn.colour import gray_to_y, rgb_to_ycbcr, y_to_gray, ycbcr_to_rgb
from relume.nn.resize import imresize

CHROMA_REACH = 2
"""Input pixels, from its own, that an output pixel's colour looks away where bicubic enlarges it."""

COLOUR_PLANES = 6
"""Planes of the output that are held at once where bicubic enlarges the colours: three, as YCbCr and RGB."""


def run_picture(run: Callable[[Tensor], Tensor], picture: Tensor, *, channels: int, luma: bool) -> Tensor:
    """Run a model on pictures of 1 or 3 channels, whatever it takes.

    Args:
        run: the model, maps batches of its own channels.
        picture: `B C h w`, floats of 0..1.
        channels: that the model takes, 1 or 3.
        luma: whether its one channel is luma of colour pictures (`Contract.luma`).

    Returns:
        `B C H W`; may pass 0..1 a little.

    Raises:
        ValueError: the picture has other channels, and so many fit no model.
    """
    of = picture.shape[1]
    if luma:
        return _by_luma(run, picture)
    if of == channels:
        return run(picture)
    if channels == 1:
        return run(picture.flatten(0, 1)[:, None]).unflatten(0, picture.shape[:2])[:, :, 0]
    if of == 1:
        return run(picture.expand(-1, channels, -1, -1)).mean(1, keepdim=True)
    raise ValueError(f"a picture of {of} channels does not fit a model of {channels}")


def _by_luma(run: Callable[[Tensor], Tensor], picture: Tensor) -> Tensor:
    if picture.shape[1] == 1:
        return y_to_gray(run(gray_to_y(picture)))
    planes = rgb_to_ycbcr(picture)
    luma = run(planes[:, :1]).to(planes)
    height, width = luma.shape[-2:]
    enlarged = torch.cat([luma, imresize(planes[:, 1:], height=height, width=width)], 1)
    del luma  # large, and no longer needed
    return ycbcr_to_rgb(enlarged)
