"""Preparing photos for training: going on after a kill or with other photos, and what cannot be begun."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from preparing import SMALL, Listening, reasons, run, save, scene
from torch.nn import functional as F

from relume.core.errors import DataError, RelumeError
from relume.core.pictures import read
from relume.data.preparation.judging import PreparationConfig
from relume.data.preparation.reading import PieceList
from relume.data.preparation.records import check_table
from relume.data.preparation.running import prepare


def test_what_is_done_is_not_done_again(photos, tmp_path):
    run(photos, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pieces").rglob("*.npy")}
    save(photos / "new.png", scene(50))
    save(photos / "b.png", scene(51))
    listener = Listening()
    rows = run(photos, tmp_path / "out", listener=listener)
    assert not reasons(rows)
    assert listener.seen == [
        ("looking at", "b.png"), ("looking at", "new.png"), ("cutting", "b.png"), ("cutting", "new.png"),
    ]  # fmt: skip
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pieces").rglob("*.npy")}
    assert sum(before.get(path) == changed for path, changed in after.items()) == 2
    assert len(after) == 4


def test_pieces_of_photos_no_longer_taken_are_removed(photos, tmp_path):
    run(photos, tmp_path / "out")
    (photos / "a.png").unlink()
    save(photos / "better.png", F.interpolate(scene(1)[None], scale_factor=2, mode="bicubic")[0].clamp(0, 1))
    rows = run(photos, tmp_path / "out")
    assert reasons(rows) == {"b.png": "is like better.png"}
    names = {path.name for path in (tmp_path / "out" / "pieces").rglob("*.npy")}
    assert names == {"better.png.npy", "c.png.npy"}


@pytest.mark.parametrize("stop_after", [1, 3, 4, 5])
def test_an_interrupted_preparation_goes_on(photos, tmp_path, stop_after):
    run(photos, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "out", listener=Listening(stop_after=stop_after))
    with pytest.raises(DataError, match="not finished"):
        PieceList.find((tmp_path / "out",))
    listener = Listening()
    run(photos, tmp_path / "out", listener=listener)
    assert len(listener.seen) == 6 - stop_after
    assert (tmp_path / "out" / "index.json").read_text() == (tmp_path / "whole" / "index.json").read_text()


def test_a_journal_cut_short_and_half_written_files_are_mended(photos, tmp_path):
    output = tmp_path / "out"
    run(photos, output)
    index = (output / "index.json").read_text()
    journal = output / ".preparation.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    (output / "pieces" / ".relume-0123.part").write_bytes(b"half")
    (output / "pieces" / "a.png.npy").unlink()
    for _ in range(2):  # the journal is sound again too
        run(photos, output)
        assert (output / "index.json").read_text() == index
    assert not list(output.rglob("*.part"))


KILLED = """
import sys
from pathlib import Path
from relume.data.preparation.judging import PreparationConfig
from relume.data.preparation.running import prepare

class Listener:
    def begun(self, what, total): print(what, flush=True)
    def done(self, source): print(source, flush=True)

if __name__ == "__main__":
    config = PreparationConfig(side=64, overlap=48, least=40, blockiness=0, form="png")
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), config, Listener(), workers=int(sys.argv[3]))
"""


def test_a_killed_preparation_leaves_nothing_half_done_and_no_process(tmp_path):
    photos, output, script = tmp_path / "photos", tmp_path / "out", tmp_path / "killed.py"
    for index in range(8):
        save(photos / f"{index}.png", scene(index, 160, 200))
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(photos), str(output), "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stdout:
            if line.strip() == "cutting":
                break
        next(process.stdout)  # one photo is cut, others are under way
        process.kill()
        process.wait()
    deadline = time.monotonic() + 30
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)
    for path in (output / "pieces").rglob("*.png"):
        read(path)  # those under their names are whole
    run(photos, output, overlap=48, form="png")
    run(photos, tmp_path / "whole", overlap=48, form="png")
    assert (output / "index.json").read_text() == (tmp_path / "whole" / "index.json").read_text()
    assert not list(output.rglob("*.part"))


def _alive(group):
    """Whether a process of the group still runs; what has ended and waits for its parent does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def test_one_at_a_time(photos, tmp_path):
    pytest.importorskip("fcntl")

    class Second(Listening):
        def done(self, source):
            with pytest.raises(DataError, match="another preparation is at work"):
                run(photos, tmp_path / "out")
            super().done(source)

    listener = Second()
    run(photos, tmp_path / "out", listener=listener)
    assert listener.seen


def test_what_cannot_be_is_refused(photos, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(DataError, match="not a folder"):
        run(tmp_path / "none")
    with pytest.raises(DataError, match="lies in the output"):
        run(photos, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        run(tmp_path / "empty")
    with pytest.raises(DataError, match="no picture to keep apart"):
        run(photos, held_back=[tmp_path / "empty"])
    (tmp_path / "mine" / "pieces").mkdir(parents=True)
    with pytest.raises(DataError, match="from no preparation"):
        run(photos, tmp_path / "mine")
    run(photos, output)
    with pytest.raises(DataError, match=r"cut otherwise \(side 64\)"):
        run(photos, output, side=80)
    with pytest.raises(RelumeError, match="ends in"):
        check_table(tmp_path / "a.txt")
    lines = (output / ".preparation.jsonl").read_text().splitlines()
    (output / ".preparation.jsonl").write_text("\n".join([lines[0], "{}", *lines[1:], ""]))
    with pytest.raises(DataError, match="damaged in line 2"):
        run(photos, output)


def test_an_output_inside_the_folder_is_not_looked_through(photos):
    first = run(photos, photos / "ready", form="png")
    assert run(photos, photos / "ready", form="png") == first


def test_what_could_not_be_read_is_looked_at_again_and_limits_hold_anew(photos, tmp_path):
    rows = run(photos, tmp_path / "out", max_megapixels=0.01)
    assert all("more than the limit of 0.01" in why for why in reasons(rows).values())
    assert len(reasons(rows)) == 3
    assert not reasons(run(photos, tmp_path / "out"))
    again = reasons(run(photos, tmp_path / "out", max_megapixels=0.01))
    assert again == dict.fromkeys(rows, "too large: 120x96, more than 0.01 megapixels")


def test_other_photos_do_not_take_the_place_of_those_cut_before(photos, tmp_path):
    run(photos, tmp_path / "out")
    save(tmp_path / "others" / "x.png", scene(9))
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(DataError, match=r"out holds pieces of other photos, of which none lies in .*others"):
        run(tmp_path / "others", tmp_path / "out")
    assert sorted((tmp_path / "out").rglob("*")) == before
    assert not reasons(run(photos.rename(tmp_path / "moved"), tmp_path / "out"))


def test_folders_left_empty_go_and_what_was_removed_is_counted(photos, tmp_path):
    run(photos, tmp_path / "out")
    (photos / "deep/er/c.png").unlink()
    config = PreparationConfig(**SMALL)
    assert prepare(photos, tmp_path / "out", config, Listening()).withdrawn == 1
    assert not (tmp_path / "out/pieces/deep").exists()
    assert prepare(photos, tmp_path / "out", config, Listening()).withdrawn == 0
