"""The page on objectives: its commands are right, and it names all that can be chosen."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from relume.apps.settings import parse_settings
from relume.core.choices import ChosenFrom
from relume.measures.losses import base as losses
from relume.nn.discriminators import base as discriminators
from relume.recipes.runner import find_recipe

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "objectives.md").read_text(encoding="utf-8")
COMMANDS = [
    command
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for command in re.split(r"^(?=relume )", block, flags=re.MULTILINE)
    if command
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_right(command):
    name, job, variant, *words = shlex.split(command)
    assert (name, job) == ("relume", "train")
    given = [value for option, value in pairwise(words) if option == "--set"]
    recipe = find_recipe(variant, "cpu")
    changed = recipe.override(parse_settings(given), where="recipe")
    assert changed.objective != recipe.objective


def test_there_are_commands():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize(
    "choice",
    [
        ChosenFrom("relume.train.objectives", "objective"),
        ChosenFrom(losses.PACKAGE, "loss"),
        ChosenFrom(discriminators.PACKAGE, "discriminator"),
    ],
    ids=lambda choice: choice.kind,
)
def test_every_choice_is_named(choice):
    assert choice.names()
    assert [name for name in choice.names() if f"`{name}`" not in PAGE] == []
