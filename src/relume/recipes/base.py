"""What every recipe is: one complete, typed, printable run."""

from __future__ import annotations

from relume.core.config import Config
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.patches import PatchesConfig
from relume.train.objectives.pixel import PixelConfig
from relume.train.settings import LoopConfig
from relume.train.validation import ValidationConfig


class Recipe(LoopConfig):
    """A run from pictures to weights; a method's file narrows `network` to its own settings.

    Attributes:
        variant: the name under which the weights will be known.
        network: the model's settings.
        start: variant or weights file whose weights are taken over where they fit; None starts at random.
        frozen: beginnings of the names of parameters that are not trained.
        data: where patches come from.
        degradation: what happens to them.
        objective: what is minimised.
        validation: what is measured on the way.
    """

    variant: str
    network: Config
    start: str | None = None
    frozen: tuple[str, ...] = ()
    data: PatchesConfig = PatchesConfig()
    degradation: BicubicConfig = BicubicConfig()
    objective: PixelConfig = PixelConfig()
    validation: ValidationConfig = ValidationConfig()
