"""What a batch remembers: what is done again, what never, and whose files are left alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from batching import Copy, Heard, batch, contents, outputs, plan_folder, wishes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relume.infer.batch.database import ManifestError
from relume.infer.batch.inputs import Finder
from relume.infer.batch.manifest import FILE_NAME, Manifest
from relume.infer.batch.pipeline import run
from relume.infer.batch.planning import again, plan
from relume.infer.batch.records import State

COPY = Copy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `in` with three files."""
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "in" / name, name)
    return tmp_path


def write(path: Path, text: str) -> None:
    """Write a file with a time of change that no other file here has."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    write.clock += 1_000_000_000
    os.utime(path, ns=(write.clock, write.clock))


write.clock = 1_600_000_000_000_000_000


def go(folder: Path, **options: object) -> tuple[dict[str, str], list[str]]:
    """Run `in` to `out`; gives how each picture ended now, and the lines told when planning."""
    heard, lines = Heard(), []
    batch(folder / "in", folder / "out", stages=COPY, heard=heard, lines=lines, **options)
    return {name: outcome.reason or outcome.status for name, outcome in heard.ends.items()}, lines


def out(folder: Path) -> dict[str, str]:
    return {name: data.decode() for name, data in outputs(folder / "out").items()}


def test_what_is_done_is_not_done_again_and_the_rest_is(folder):
    assert go(folder) == (dict.fromkeys(("a.png", "b.png", "c.png"), "done"), [])
    assert go(folder) == ({}, [])
    write(folder / "in" / "d.png", "new")
    write(folder / "in" / "a.png", "changed")
    (folder / "out" / "b.png").unlink()
    assert go(folder)[0] == dict.fromkeys(("a.png", "b.png", "d.png"), "done")
    assert out(folder) == {"a.png": "changed!", "b.png": "b.png!", "c.png": "c.png!", "d.png": "new!"}


def test_an_output_that_the_user_has_edited_is_kept(folder):
    go(folder)
    write(folder / "out" / "a.png", "edited")
    assert go(folder) == ({}, [])
    write(folder / "in" / "a.png", "changed")
    ends, _ = go(folder)
    assert "exists already and was kept" in ends["a.png"]
    assert out(folder)["a.png"] == "edited"
    assert go(folder, overwrite=True)[0] == {"a.png": "done"}
    assert out(folder)["a.png"] == "changed!"
    assert go(folder, overwrite=True)[0] == {}


def test_a_file_of_others_in_the_way_is_kept_unless_told(folder):
    write(folder / "out" / "a.png", "theirs")
    for _ in range(2):
        ends, _ = go(folder)
        assert "out/a.png: exists already and was kept" in ends["a.png"]
    assert out(folder) == {"a.png": "theirs", "b.png": "b.png!", "c.png": "c.png!"}
    assert go(folder, overwrite=True)[0] == {"a.png": "done"}
    assert out(folder)["a.png"] == "a.png!"


def test_what_failed_is_tried_again_and_what_was_skipped_is_not(folder):
    write(folder / "in" / "b.png", "bad")
    write(folder / "in" / "c.png", "skip")
    ends, _ = go(folder)
    assert ends == {"a.png": "done", "b.png": f"{folder}/in/b.png: is bad; mend it", "c.png": "nothing to do"}
    assert set(go(folder)[0]) == {"b.png"}
    write(folder / "in" / "b.png", "good")
    write(folder / "in" / "c.png", "good")
    assert go(folder)[0] == {"b.png": "done", "c.png": "done"}
    with Manifest.resume(folder / "out" / FILE_NAME) as manifest:
        assert manifest.counts(asked=False)[State.DONE] == 3


def test_other_settings_are_refused_in_a_line_where_outputs_would_clash(folder):
    go(folder, scale=2, model="one")
    before = contents(folder / "out")
    with pytest.raises(ManifestError) as caught:
        go(folder, scale=4, model="one")
    line = str(caught.value)
    assert "out/a.png and 2 more: made earlier with other settings (scale 2, now 4)" in line
    assert "--overwrite" in line
    after = contents(folder / "out")
    assert {name: data for name, data in after.items() if name != FILE_NAME} == {
        name: data for name, data in before.items() if name != FILE_NAME
    }
    assert go(folder, scale=2, model="one") == ({}, [])  # the older work is as it was
    assert set(go(folder, scale=4, model="one", overwrite=True)[0]) == {"a.png", "b.png", "c.png"}
    assert go(folder, scale=4, model="one") == ({}, [])


def test_a_batch_is_resumed_from_its_manifest_alone(folder):
    write(folder / "in" / "b.png", "bad")
    go(folder, scale=2)
    write(folder / "in" / "b.png", "good")
    (folder / "out" / "c.png").unlink()
    heard = Heard()
    with Manifest.resume(folder / "out" / FILE_NAME) as manifest:
        assert manifest.settings == {"scale": 2}
        planned = plan(manifest, again(manifest))
        assert (planned.done, planned.left) == (1, {".png": (2, len("good") + len("c.png"))})
        run(manifest, COPY, listener=heard, memory=1 << 20)
    assert set(heard.ends) == {"b.png", "c.png"}
    assert out(folder)["b.png"] == "good!"
    with pytest.raises(ManifestError, match="there is no such manifest"):
        Manifest.resume(folder / "in" / FILE_NAME)


def test_one_process_at_a_time(folder):
    with (
        Manifest.open(folder / FILE_NAME, {}),
        pytest.raises(ManifestError, match=f"{FILE_NAME}: another relume is at work on this batch"),
    ):
        Manifest.open(folder / FILE_NAME, {})


def test_what_is_no_manifest_is_refused_in_a_line_and_stays(folder):
    path = folder / FILE_NAME
    path.write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(ManifestError, match="this is no manifest, or a damaged one"):
        Manifest.open(path, {})
    path.unlink()
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE bookmarks (url TEXT)")
    base.close()
    before = path.read_bytes()
    with pytest.raises(ManifestError, match="a database of another program"):
        Manifest.open(path, {})
    assert path.read_bytes() == before
    with pytest.raises(ManifestError, match="cannot be made or written here"):
        Manifest.open(folder / "nowhere" / FILE_NAME, {})


def test_a_batch_of_which_nothing_came_leaves_no_manifest(folder):
    for name in ("a", "b", "c"):
        write(folder / "in" / f"{name}.png", "bad")
    assert len(go(folder)[0]) == 3
    assert contents(folder / "out") == {}


def test_a_folder_with_its_outputs_may_be_moved(folder):
    def beside(place: Path) -> Heard:
        heard = Heard()
        with Manifest.open(place / FILE_NAME, {}) as manifest:
            plan_folder(manifest, [place], None, suffix="_x2")
            run(manifest, COPY, listener=heard, memory=1 << 20)
        return heard

    assert len(beside(folder / "in").ends) == 3
    (folder / "in").rename(folder / "elsewhere")
    assert beside(folder / "elsewhere").ends == {}


def test_outputs_of_any_earlier_run_over_a_folder_are_not_its_inputs(folder):
    """Other suffix, other output folder, a folder above: the manifests that lie there know."""

    def run_over(place: Path, output: Path | None, suffix: str, *, deep: bool = False) -> set[str]:
        heard = Heard()
        path = (output or place) / FILE_NAME
        path.parent.mkdir(exist_ok=True)
        with Manifest.open(path, {"suffix": suffix}) as manifest:
            plan_folder(manifest, [place], output, suffix=suffix, deep=deep)
            run(manifest, COPY, listener=heard, memory=1 << 20)
        return set(heard.ends)

    three = {"a.png", "b.png", "c.png"}
    write(folder / "in" / "sub" / "d.png", "d")
    assert run_over(folder / "in", None, "_x3", deep=True) == {*three, "d.png"}
    assert run_over(folder / "in", None, "_x2") == three
    assert run_over(folder / "in", None, "_x4") == three
    assert run_over(folder / "in", folder / "out", "") == three
    assert run_over(folder, folder / "all", "", deep=True) == {*three, "d.png"}
    assert run_over(folder / "in" / "sub", None, "_x2") == {"d.png"}
    assert run_over(folder / "in", folder / "in" / "big", "", deep=True) == {*three, "d.png"}
    assert run_over(folder / "in", folder / "in" / "more", "", deep=True) == {*three, "d.png"}
    # Whoever names a folder of outputs means them.
    assert run_over(folder / "in" / "big", folder / "bigger", "") == three
    assert {name for name in contents(folder) if "-wal" in name or "-shm" in name} == set()


def test_clashes_are_told_and_cost_nobody_a_file(folder):
    write(folder / "in" / "a.jpg", "another a")
    write(folder / "in" / "b_x2.png", "a picture of its own")
    lines: list[str] = []
    with Manifest.open(None, {}) as manifest:
        finder = Finder((".png", ".jpg"), deep=False, manifest=manifest, tell=lines.append)
        asked = [wish._replace(target=str(Path(wish.target).with_suffix(".png")), search=None)
                 for wish in wishes(finder, [folder / "in"], None, "_x2")]  # fmt: skip
        planned = plan(manifest, asked, overwrite=True, refuse=lambda _, line: lines.append(line))
        assert {job.source.name for job in manifest.left()} == {"a.jpg", "b_x2.png", "c.png"}
    assert planned.refused == 2
    place = folder / "in"
    assert lines == [
        f"{place}/a.png: would be written to {place}/a_x2.png, as {place}/a.jpg is; rename one of them",
        f"{place}/b.png: would be written to {place}/b_x2.png, which is an input and would be lost; "
        "choose another -o or --suffix",
    ]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_put_no_input_in_danger(folder):
    (folder / "out").mkdir()
    (folder / "out" / "a.png").symlink_to(folder / "in" / "b.png")
    (folder / "in" / "link.png").symlink_to(folder / "out" / "c.png")
    write(folder / "real", "linked")
    (folder / "out" / "c.png").symlink_to(folder / "real")
    ends, lines = go(folder, overwrite=True)
    assert len(lines) == 2
    assert all("which is an input and would be lost" in line for line in lines)
    assert (folder / "in" / "b.png").read_text() == "b.png"
    assert (folder / "real").read_text() == "linked"
    assert set(ends) == {"b.png", "link.png"}


def test_names_that_are_no_text_are_kept(folder):
    name = os.fsdecode(b"latin-\xe9.png")
    try:
        write(folder / "in" / name, "e")
    except OSError:
        pytest.skip("this file system does not take such names")
    assert go(folder)[0][name] == "done"
    assert go(folder) == ({}, [])
    with Manifest.resume(folder / "out" / FILE_NAME) as manifest:
        assert name in {record.source.name for record in manifest.records(asked=False)}


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["input", "bad input", "no input", "edit output", "no output", "run", "run over"]),
        st.sampled_from("ab"),
    ),
    min_size=2,
    max_size=10,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_whatever_happens_between_runs_edited_files_stay_and_the_rest_is_up_to_date(tmp_path, events):
    shutil.rmtree(tmp_path)
    (tmp_path / "in").mkdir(parents=True)
    edited: dict[str, str] = {}
    for number, (event, name) in enumerate([*events, ("run", "")]):
        source, output = tmp_path / "in" / f"{name}.png", tmp_path / "out" / f"{name}.png"
        if event in ("input", "bad input"):
            write(source, "bad" if event == "bad input" else f"input {number}")
        elif event == "no input":
            source.unlink(missing_ok=True)
        elif event == "edit output":
            write(output, f"edit {number}")
            edited[name] = f"edit {number}"
        elif event == "no output":
            output.unlink(missing_ok=True)
            edited.pop(name, None)
        else:
            before = out(tmp_path)
            go(tmp_path, overwrite=event == "run over")
            after = out(tmp_path)
            for each in "ab":
                there = tmp_path / "in" / f"{each}.png"
                text = there.read_text() if there.exists() else None
                if text in (None, "bad"):
                    assert after.get(f"{each}.png") == before.get(f"{each}.png")
                elif event == "run" and each in edited:
                    assert after[f"{each}.png"] == edited[each]
                else:
                    assert after[f"{each}.png"] == f"{text}!"
                    edited.pop(each, None)
            assert not [name for name in after if ".part" in name]
