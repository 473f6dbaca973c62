"""What the outside may ask of a model without knowing it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The promise of a model that maps one picture to one picture.

    A model takes any height and width from 1 up; where its layers need a
    multiple, it pads and crops inside. Values are of 0..1, in and out.

    Attributes:
        scale: output pixels for each input pixel along each side (1: same size).
        channels: channels in and out (3: RGB, 1: luma or gray; or the bands of cubes).
        luma: whether the one channel is luma of colour pictures, as BT.601 has it in 16..235 of 255: then
            their colours are enlarged by bicubic (`nn.channels`). A model of one channel that is not of
            luma takes gray pictures, and of others each channel by itself.
        halo: radius in input pixels beyond which the input cannot change an
            output pixel; None where the reach is unbounded.
        effort: whether `Network.effort` may be set: 0..1, quality against time.
        strength: whether `Network.strength` may be set: 0..1, from one of the looks that the model was
            trained for to the other.
        scales: all scales that it has layers for, of which the config's `scale` takes one; empty where there
            is no other.
        cubes: whether it takes hyperspectral cubes of any number of bands, be they one or three.

    Raises:
        ValueError: luma of several channels, or of cubes.
    """

    scale: int
    channels: int
    halo: int | None
    luma: bool = False
    effort: bool = False
    strength: bool = False
    cubes: bool = False
    scales: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.luma and self.channels != 1:
            raise ValueError(f"luma is one channel, not {self.channels}")
        if self.luma and self.cubes:
            raise ValueError("luma is of pictures, not of cubes")

    @property
    def of_cubes(self) -> bool:
        """Whether the model takes hyperspectral cubes of `channels` bands, rather than pictures.

        No picture has other than one or three channels, so a model that does takes cubes, whatever it is.
        """
        return self.cubes or self.channels not in (1, 3)
