"""What every recipe is: one complete, typed, printable run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Annotated, Any, Protocol, Self, TypeVar

from pydantic import ValidationInfo, field_validator

from relume.core.catalogue import find_variant, systems, variants
from relume.core.choices import ChosenFrom
from relume.core.config import Config, told
from relume.core.errors import ConfigError, UnknownNameError
from relume.data.degradations.base import DegradationConfig
from relume.data.degradations.bicubic import BicubicConfig
from relume.data.patches import PatchesConfig
from relume.models import zoo
from relume.train.objectives.base import ObjectiveConfig
from relume.train.objectives.pixel import PixelConfig
from relume.train.settings import LoopConfig
from relume.train.validation import ValidationConfig

AnyDegradation = Annotated[DegradationConfig, ChosenFrom("relume.data.degradations", "degradation")]
AnyObjective = Annotated[ObjectiveConfig, ChosenFrom("relume.train.objectives", "objective")]
"""Types of a recipe's fields; where a method's file gives another default, it keeps the type."""


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
    degradation: AnyDegradation = BicubicConfig()
    objective: AnyObjective = PixelConfig()
    validation: ValidationConfig = ValidationConfig()

    @field_validator("variant")
    @classmethod
    def _is_known(cls, variant: str) -> str:
        try:
            find_variant(variant)
        except UnknownNameError as error:
            raise told(str(error)) from error
        return variant

    @field_validator("network")
    @classmethod
    def _is_of_the_variant(cls, network: Config, info: ValidationInfo) -> Config:
        if "variant" in info.data:
            variant = info.data["variant"]
            wanted = zoo.config_class(find_variant(variant).system)
            if not isinstance(network, wanted):
                raise told(
                    f"{variant} has a {wanted.__name__}, not a {type(network).__name__}; "
                    f"begin with the variant's own recipe: relume train {variant}"
                )
        return network

    @field_validator("surgery")
    @classmethod
    def _once_each(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((step for step in steps if steps.count(step) > 1), None)
        if twice is not None:
            raise told(f"{twice!r} stands twice; each step is done once")
        return steps

    def override(self, changes: Mapping[str, Any], *, where: str) -> Self:
        """Return a copy with some values replaced (`Config.override`).

        Raises:
            ConfigError: also for another variant, as only its own recipe has its settings.
        """
        variant = changes.get("variant", self.variant)
        if variant != self.variant:
            try:
                own = f"begin with its own recipe: relume train {find_variant(str(variant)).name}"
            except UnknownNameError as error:
                own = str(error)
            raise ConfigError(
                f"{where}: variant: the settings of {self.variant} do not make another variant; {own}"
            )
        return super().override(changes, where=where)


Made = TypeVar("Made", bound=Recipe)
Made_co = TypeVar("Made_co", bound=Recipe, covariant=True)


class Recipes(Protocol[Made_co]):
    """A method's `recipe`."""

    def __call__(self, variant: str, budget: str = "cpu") -> Made_co:
        """Return the complete recipe of a variant in a budget.

        Raises:
            UnknownNameError: no such variant or budget; the nearest is named.
        """
        ...


def names_checked(
    own: Collection[str], budgets: Collection[str]
) -> Callable[[Callable[[str, str], Made]], Recipes[Made]]:
    """Have a method's `recipe` refuse what it has no variant or budget for.

    Args:
        own: the method's variants.
        budgets: its budgets.
    """

    def decorate(make: Callable[[str, str], Made]) -> Recipes[Made]:
        @wraps(make)
        def checked(variant: str, budget: str = "cpu") -> Made:
            if variant not in own:
                other = variants().get(variant)
                module = systems()[other.system].recipe if other else None
                hint = f"(the recipe of {variant} is in {module})" if module else ""
                raise UnknownNameError("variant", str(variant), own, hint)
            if budget not in budgets:
                raise UnknownNameError("budget", str(budget), budgets)
            return make(variant, budget)

        return checked

    return decorate
