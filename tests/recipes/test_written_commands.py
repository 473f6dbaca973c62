"""What recipes and pages say is to be typed: each `relume train …` is understood, with all its settings."""

import re
import shlex
from importlib import import_module

import pytest
import yaml
from typer.testing import CliRunner

from relume.apps.cli import app
from relume.core.catalogue import ROOT, systems

PAGES = {str(path.relative_to(ROOT)): path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}
RECIPES = [system.name for system in systems().values() if system.recipe]


def commands(text):
    """The words after "train" of each command in a text, in a line of its own or in backquotes."""
    for found in re.finditer(r"relume train ", text):
        rest = text[found.end() :]
        if text[: found.start()].endswith("`"):
            yield shlex.split(rest.partition("`")[0])
            continue
        if text[: found.start()].rpartition("\n")[2].strip(" |") not in ("", "OMP_NUM_THREADS=1"):
            continue  # the words in a sentence
        lines = iter(rest.splitlines())
        words = next(lines)
        for line in lines:
            goes_on = words.endswith("\\") or line.lstrip().startswith("--") or words.count("'") % 2
            if not goes_on:
                break
            words = f"{words.rstrip(chr(92))} {line}"
        yield shlex.split(re.split(r" [>|] ", words)[0], comments=True)


def understood(text):
    """How many commands a text has; each is understood up to the recipe that it would run."""
    count = 0
    for words in commands(text):
        # NAME and the like stand for any variant, a file for the reader's own.
        if words and re.fullmatch(r"[a-z][a-z0-9-]*", words[0]) and "…" not in words:
            done = CliRunner().invoke(app, ["train", *words, "--show-recipe"])
            assert done.exit_code == 0, f"relume train {shlex.join(words)}: {done.exception or done.output}"
            assert yaml.safe_load(done.stdout)["variant"] == words[0]
            count += 1
    return count


def test_commands_are_found_in_text():
    text = (
        "`relume train a --set b=1` and relume train in words\n```sh\n"
        "relume train c --set 'd=[\n  1]' \\\n  --e  # f\n"
        "relume train g > h\n```\n    relume train i\n        --set j=1\n"
    )
    assert list(commands(text)) == [
        ["a", "--set", "b=1"], ["c", "--set", "d=[   1]", "--e"], ["g"], ["i", "--set", "j=1"]
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_pages_are_understood(page):
    least = {"README.md": 3, "docs/training.md": 2, "docs/objectives.md": 10, "docs/models.md": 40}
    assert understood(PAGES[page].read_text(encoding="utf-8")) >= least.get(page, 0)


@pytest.mark.parametrize("system", RECIPES)
def test_commands_in_recipes_are_understood(system):
    text = import_module(systems()[system].recipe).__doc__
    assert understood(text) >= {"swinir": 1, "hat": 2, "srgan": 1}.get(system, 0)
    for settings in re.findall(r"`(--set [^`]+[^`=])`", text):
        # In words it is said for which of the variants.
        answers = [
            CliRunner().invoke(app, ["train", variant, *shlex.split(settings), "--show-recipe"])
            for variant in systems()[system].variants
        ]
        assert 0 in [answer.exit_code for answer in answers], f"{settings}: {answers[0].exception}"
