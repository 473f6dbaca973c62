"""What every discriminator is: pictures in, logits out, higher for real ones."""

from __future__ import annotations

from importlib import import_module

from pydantic import PositiveInt
from torch import Tensor, nn

from relume.core.config import Config
from relume.core.errors import ConfigError
from relume.nn.partners import begin

PACKAGE = "relume.nn.discriminators"
"""Where discriminators lie, for `core.choices.ChosenFrom`."""


class DiscriminatorConfig(Config):
    """Settings that all discriminators have; each file's config narrows `name` and adds its own.

    Attributes:
        name: which discriminator.
        channels: of the pictures.
        width: channels after the first convolution.
    """

    name: str
    channels: PositiveInt = 3
    width: PositiveInt = 64

    def build(self) -> Discriminator:
        """Return the discriminator with random weights."""
        raise NotImplementedError

    def begun(self, start: str | None) -> Discriminator:
        """Return the discriminator with its authors' weights, or with random ones where no file is named.

        Raises:
            CheckpointError: the file cannot be read, or is of another discriminator.
        """
        module = import_module(type(self).__module__)
        return begin(self.build(), self, start, module.from_official)


class Discriminator(nn.Module):
    """Maps pictures `B C H W`, 0..1, to logits: one a picture, `B 1`, or one a place, `B 1 H' W'`."""

    config: DiscriminatorConfig

    def _refuse(self, x: Tensor, *, least: int) -> None:
        """Refuse pictures that it cannot take.

        Raises:
            ConfigError: other channels, or a side shorter than `least`.
        """
        name, channels = self.config.name, self.config.channels
        if x.shape[1] != channels:
            raise ConfigError(
                f"the discriminator {name} is set to {channels} channels, the network gives {x.shape[1]}; "
                f"set the discriminator's channels to {x.shape[1]}"
            )
        if min(x.shape[-2:]) < least:
            raise ConfigError(
                f"the discriminator {name} needs patches of {least} pixels a side, got "
                f"{x.shape[-1]}×{x.shape[-2]}; raise data.patch"
            )
