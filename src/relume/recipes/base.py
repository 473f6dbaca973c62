"""What every recipe is: one complete, typed, printable run."""

from __future__ import annotations

from typing import Annotated

from relume.core.choices import ChosenFrom
from relume.core.config import Config
from relume.data.degradations.base import DegradationConfig
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.patches import PatchesConfig
from relume.train.objectives.base import ObjectiveConfig
from relume.train.objectives.pixel import PixelConfig
from relume.train.settings import LoopConfig
from relume.train.validation import ValidationConfig


class Recipe(LoopConfig):
    """A run from pictures to weights; a method's file narrows `network` to its own settings.

    Attributes:
        variant: the name under which the weights will be known.
        network: the model's settings.
        surgery: steps of `nn.surgery` done before training, so that what they make is what is trained.
        start: variant or weights file whose weights are taken over where they fit; None starts at random.
        frozen: beginnings of the names of parameters that are not trained.
        data: where patches come from.
        degradation: what happens to them: any idea of `data.degradations`, by its name.
        objective: what is minimised: any idea of `train.objectives`, by its name.
        validation: what is measured on the way.
    """

    variant: str
    network: Config
    surgery: tuple[str, ...] = ()
    start: str | None = None
    frozen: tuple[str, ...] = ()
    data: PatchesConfig = PatchesConfig()
    degradation: Annotated[DegradationConfig, ChosenFrom("relume.data.degradations", "degradation")] = (
        BicubicConfig()
    )
    objective: Annotated[ObjectiveConfig, ChosenFrom("relume.train.objectives", "objective")] = PixelConfig()
    validation: ValidationConfig = ValidationConfig()
