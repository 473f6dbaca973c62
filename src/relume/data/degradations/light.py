"""Light as it falls on a sensor: stored values to linear light and back, and the sensor's noise."""

from __future__ import annotations

import torch
from torch import Tensor


def to_linear(stored: Tensor) -> Tensor:
    """Return linear light 0..1 of stored values 0..1 (sRGB, IEC 61966-2-1)."""
    return torch.where(stored <= 0.04045, stored / 12.92, ((stored.clamp(min=0) + 0.055) / 1.055).pow(2.4))


def to_stored(linear: Tensor) -> Tensor:
    """Return stored values 0..1 of linear light, which is clipped to 0..1 as a file would."""
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.pow(1 / 2.4) - 0.055)


def luminance(colour: Tensor) -> Tensor:
    """Return the brightness `1 H W` of `C H W` by the weights of BT.709; gray is its own."""
    if colour.shape[0] == 1:
        return colour
    red, green, blue = colour
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue).unsqueeze(0)


def shot_and_read_noise(linear: Tensor, *, shot: float, read: float, random: torch.Generator) -> Tensor:
    """Return a sensor's noise for linear light, to be added to it.

    Normal with variance `shot · x + read`: photons arrive one by one (shot noise, proportional to the
    light) and reading them out errs by the same everywhere.

    Args:
        linear: light, 1 where the sensor is full.
        shot: light of one photon, as a share of a full sensor.
        read: variance in the dark.
        random: on the CPU.
    """
    noise = torch.randn(linear.shape, generator=random).to(linear.device)
    return noise * (shot * linear.clamp(min=0) + read).sqrt()
