"""Which file goes where: for any request, no output is promised twice and no input is in danger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relume.apps.destinations import default_suffix, destinations, manifest_place
from relume.core.errors import RelumeError
from relume.core.pictures import SUFFIXES
from relume.infer.batch.inputs import Finder, is_search
from relume.infer.batch.manifest import Manifest
from relume.infer.batch.planning import plan
from relume.infer.targets import Target

STEMS = ("a", "b", "a_x2", "b_x2", "A", "a.b")
ENDINGS = (".png", ".jpg", ".JPG", ".tif", "", ".txt")
FOLDERS = ("", "in/", "in/deep/", "out/")
FILES = [f"{folder}{stem}{ending}" for folder in FOLDERS for stem in STEMS for ending in ENDINGS]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with folders `in`, `in/deep`, `out` and `hollow`, where the test runs."""
    folder = tmp_path_factory.mktemp("plan")
    for name in ("in/deep", "out", "hollow"):
        (folder / name).mkdir(parents=True)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def planned(
    asked: list[Path], output: Path | None = None, *, suffix: str = "", ending: str | None = None,
    deep: bool = False,
) -> tuple[list[tuple[Path, Path]], list[str]]:  # fmt: skip
    """Plan as the command does; gives sources with targets, and the lines told."""
    several = len(asked) > 1 or any(map(is_search, asked))
    places = destinations(output, several=several, suffix=suffix, format=ending)
    lines: list[str] = []
    with Manifest.open(None, {}) as manifest:
        finder = Finder(SUFFIXES, deep=deep, manifest=manifest, tell=lines.append)
        plan(manifest, places.wishes(finder.find(asked)), refuse=lambda _, line: lines.append(line))
        return [(job.source, job.target) for job in manifest.left()], lines


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    there=st.sets(st.sampled_from(FILES), max_size=12),
    asked=st.lists(
        st.sampled_from(
            [*FILES, ".", "in", "out", "hollow", "./in/../in", "missing.png", "**/*.png", "i*/a*"]
        ),
        min_size=1,
        max_size=6,
    ),
    output=st.sampled_from([None, "out", "in", ".", "fresh", "in/a.png", "new.png"]),
    suffix=st.sampled_from(["", "_x2", "-big"]),
    ending=st.sampled_from([None, "png", "jpeg"]),
    deep=st.booleans(),
)
def test_no_two_outputs_are_one_file_and_none_is_an_input(place, there, asked, output, suffix, ending, deep):
    for name in there:
        (place / name).touch()
    try:
        before = sorted(place.rglob("*"))
        try:
            jobs, lines = planned(
                [Path(path) for path in asked],
                output and Path(output),
                suffix=suffix,
                ending=ending,
                deep=deep,
            )
        except RelumeError:
            return
        finally:
            assert sorted(place.rglob("*")) == before  # planning changes nothing
        targets = [os.path.realpath(target) for _, target in jobs]
        assert len(set(targets)) == len(targets)
        inputs = {os.path.realpath(source) for source, _ in jobs}
        inputs |= {os.path.realpath(path) for path in asked if not is_search(path)}
        assert not inputs & set(targets)
        for path in asked:  # nothing that was named is passed over without a word
            if not is_search(path):
                said = any(line.startswith(f"{Path(path)}: ") for line in lines)
                assert os.path.realpath(path) in inputs
                assert said or any(os.path.realpath(path) == os.path.realpath(source) for source, _ in jobs)
        if output and Path(output).is_dir():
            assert all(target.is_relative_to(output) for _, target in jobs)
    finally:
        for name in there:
            (place / name).unlink()


def test_outputs_of_an_earlier_run_are_not_enlarged_again(tmp_path):
    for name in ("a.png", "a_x2.png", "a_x2_x2.png", "b.jpg", "b_x2.png", ".hidden.png"):
        (tmp_path / name).touch()
    jobs, lines = planned([tmp_path], None, suffix="_x2")
    assert [(source.name, target.name) for source, target in jobs] == [
        ("a.png", "a_x2.png"),
        ("b.jpg", "b_x2.jpg"),
        ("b_x2.png", "b_x2_x2.png"),  # not what b.jpg becomes
    ]
    assert lines == []


@pytest.mark.parametrize(
    ("asked", "output", "wish", "says"),
    [
        (["a.png", "b.png"], "c.png", {}, "c.png names a file, but several pictures need a folder"),
        (["a.png", "b.png"], "there.png", {}, "there.png is a file, but several pictures need a folder"),
        (["."], "c.png", {}, "c.png names a file, but several"),
        (["*.png"], "c.png", {}, "c.png names a file, but several"),
        (["a.png", "b.png"], "no/such", {}, "there is no folder no; make it first"),
        (["a.png"], "c.png", {"ending": "jpg"}, "c.png is not named as the format jpg is"),
        (["a.png"], None, {"ending": "gif"}, "unknown format 'gif'; known: avif, jpeg, mat, npy, png"),
        (["a.png"], None, {"suffix": "/x"}, "--suffix '/x' holds a folder"),
        (["a.png"], None, {"suffix": "/../../x"}, "holds a folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(place, asked, output, wish, says):
    (place / "there.png").touch()
    try:
        with pytest.raises(RelumeError) as caught:
            planned([Path(path) for path in asked], output and Path(output), **wish)
        assert says in str(caught.value)
    finally:
        (place / "there.png").unlink()


def test_a_single_input_in_the_way_of_itself_is_refused(place):
    for output in (None, "a.png", ".", "in/../a.png"):
        jobs, lines = planned([Path("a.png")], output and Path(output))
        assert jobs == []
        assert "would be lost" in lines[0]


@pytest.mark.parametrize(
    ("wish", "suffix"),
    [
        (None, "_x4"),
        ({"scale": 2.0}, "_x2"),
        ({"scale": 2.5}, "_x2.5"),
        ({"width": 1920}, "_w1920"),
        ({"height": 1080}, "_h1080"),
        ({"width": 1920, "height": 1080}, "_1920x1080"),
        ({"fit": (1920, 1080)}, "_fit1920x1080"),
        ({"megapixels": 12.5}, "_12.5mp"),
    ],
)
def test_names_beside_the_inputs_say_the_size(wish, suffix):
    assert default_suffix(wish and Target(**wish), 4) == suffix


def test_a_manifest_lies_with_the_outputs_or_the_first_inputs(place):
    for asked, output, folder in (
        (["in"], "out", "out"),
        (["in"], None, "in"),
        (["in/a.png", "out/b.png"], None, "in"),
        (["in/**/*.png"], None, "in"),
        (["*.png", "in"], None, "."),
    ):
        found = manifest_place([Path(path) for path in asked], output and Path(output))
        assert found == Path(folder) / ".relume-job.sqlite"
