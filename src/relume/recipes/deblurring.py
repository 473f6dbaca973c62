"""What recipes against motion blur have in common: photos blurred by a moving camera, measured as RGB.

The authors of such networks have pairs of blurred and sharp frames of GoPro instead. The objective is
multi-output (arXiv:2208.13029): with one picture the plain loss of its distance, with several that of the
nearest.
"""

from __future__ import annotations

from relume.data.degradations.motion_blur import MotionBlurConfig
from relume.recipes.base import AnyDegradation, AnyObjective, Recipe
from relume.train.objectives.multi_output import MultiOutputConfig
from relume.train.validation import ValidationConfig


class DeblurringRecipe(Recipe):
    """A recipe whose pictures keep their size."""

    degradation: AnyDegradation = MotionBlurConfig()
    objective: AnyObjective = MultiOutputConfig()
    validation: ValidationConfig = ValidationConfig(protocol="sr-rgb")
    clip: float = 0.01
