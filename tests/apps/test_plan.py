"""Which file goes where: for any request, no output is promised twice and no input is in danger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relume.apps.commands.upscale import plan
from relume.core.errors import RelumeError

STEMS = ("a", "b", "a_x2", "b_x2", "A", "a.b")
ENDINGS = (".png", ".jpg", ".JPG", ".tif", "", ".txt")
FILES = [f"{folder}{stem}{ending}" for folder in ("", "in/", "out/") for stem in STEMS for ending in ENDINGS]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with folders `in`, `out` and `hollow`, where the test runs."""
    folder = tmp_path_factory.mktemp("plan")
    for name in ("in", "out", "hollow"):
        (folder / name).mkdir()
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    there=st.sets(st.sampled_from(FILES), max_size=12),
    asked=st.lists(
        st.sampled_from([*FILES, ".", "in", "out", "hollow", "./in/../in", "missing.png"]),
        min_size=1,
        max_size=6,
    ),
    output=st.sampled_from([None, "out", "in", ".", "fresh", "in/a.png", "new.png"]),
    suffix=st.sampled_from(["", "_x2", "-big"]),
    ending=st.sampled_from([None, "png", "jpeg"]),
)
def test_no_two_outputs_are_one_file_and_none_is_an_input(place, there, asked, output, suffix, ending):
    for name in there:
        (place / name).touch()
    try:
        before = sorted(place.rglob("*"))
        try:
            todo = plan([Path(path) for path in asked], output and Path(output), suffix=suffix, format=ending)
        except RelumeError:
            return
        finally:
            assert sorted(place.rglob("*")) == before  # planning changes nothing
        targets = [os.path.realpath(job.target) for job in todo.jobs]
        assert len(set(targets)) == len(targets)
        inputs = {os.path.realpath(job.source) for job in todo.jobs}
        inputs |= {os.path.realpath(path) for path in asked if not Path(path).is_dir()}
        assert not inputs & set(targets)
        for path in asked:  # nothing that was named is passed over without a word
            named = {os.path.realpath(job.source) for job in todo.jobs}
            if not Path(path).is_dir():
                said = any(failure.startswith(f"{Path(path)}: ") for failure in todo.failures)
                assert os.path.realpath(path) in named or said
        if output and todo.folder:
            assert all(job.target.parent == Path(output) for job in todo.jobs)
    finally:
        for name in there:
            (place / name).unlink()


def test_outputs_of_an_earlier_run_are_not_enlarged_again(tmp_path):
    for name in ("a.png", "a_x2.png", "a_x2_x2.png", "b.jpg", "b_x2.png", ".hidden.png"):
        (tmp_path / name).touch()
    todo = plan([tmp_path], None, suffix="_x2", format=None)
    assert [(job.source.name, job.target.name) for job in todo.jobs] == [
        ("a.png", "a_x2.png"),
        ("b.jpg", "b_x2.jpg"),
        ("b_x2.png", "b_x2_x2.png"),  # not what b.jpg becomes
    ]
    assert todo.failures == []


@pytest.mark.parametrize(
    ("asked", "output", "wish", "says"),
    [
        (["a.png", "b.png"], "c.png", {}, "c.png names a file, but several pictures need a folder"),
        (["a.png", "b.png"], "there.png", {}, "there.png is a file, but several pictures need a folder"),
        (["."], "c.png", {}, "c.png names a file, but several"),
        (["a.png", "b.png"], "no/such", {}, "there is no folder no; make it first"),
        (["a.png"], "c.png", {"format": "jpg"}, "c.png is not named as the format jpg is"),
        (["a.png"], None, {"format": "gif"}, "unknown format 'gif'; known: avif, jpeg, png, tiff, webp"),
        (["a.png"], None, {"suffix": "/x"}, "--suffix '/x' holds a folder"),
        (["a.png"], None, {"suffix": "/../../x"}, "holds a folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(place, asked, output, wish, says):
    (place / "there.png").touch()
    try:
        with pytest.raises(RelumeError) as caught:
            plan(
                [Path(path) for path in asked],
                output and Path(output),
                **{"suffix": "", "format": None, **wish},
            )
        assert says in str(caught.value)
    finally:
        (place / "there.png").unlink()


def test_a_single_input_in_the_way_of_itself_is_refused(place):
    for output, suffix in ((None, ""), ("a.png", ""), (".", ""), ("in/../a.png", "")):
        todo = plan([Path("a.png")], output and Path(output), suffix=suffix, format=None)
        assert todo.jobs == []
        assert "would be lost" in todo.failures[0]
