"""What recipes against motion blur have in common: photos blurred by a moving camera, measured as RGB.

The authors of such networks have pairs of blurred and sharp frames of GoPro instead. The objective is
multi-output (arXiv:2208.13029): with one picture the plain loss of its distance, with several that of the
nearest.
"""

from __future__ import annotations

from typing import Annotated

from relume.core.choices import ChosenFrom
from relume.data.degradations.base import DegradationConfig
from relume.data.degradations.motion_blur import MotionBlurConfig
from relume.recipes.base import Recipe
from relume.train.objectives.base import ObjectiveConfig
from relume.train.objectives.multi_output import MultiOutputConfig
from relume.train.validation import ValidationConfig


class DeblurringRecipe(Recipe):
    """A recipe whose pictures keep their size."""

    degradation: Annotated[DegradationConfig, ChosenFrom("relume.data.degradations", "degradation")] = (
        MotionBlurConfig()
    )
    objective: Annotated[ObjectiveConfig, ChosenFrom("relume.train.objectives", "objective")] = (
        MultiOutputConfig()
    )
    validation: ValidationConfig = ValidationConfig(protocol="sr-rgb")
    clip: float = 0.01
