"""Files appear whole or not at all, and what belongs to others is left alone."""

import os
import pickle

import pytest

from relume.core.checkpoints import read_tensors
from relume.core.errors import CheckpointError, OutputExistsError, RelumeError
from relume.core.files import whole, write_text


def test_a_failure_leaves_the_old_file_and_the_parts_of_others(tmp_path):
    target, others = tmp_path / "a.txt", tmp_path / f".relume-{os.getpid()}-0.part"
    target.write_text("old")
    others.write_text("somebody else's")

    def fail_halfway():
        with whole(target) as hidden:
            hidden.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(RelumeError, match="cannot be written"):
        fail_halfway()
    assert sorted(tmp_path.iterdir()) == sorted([target, others])
    assert target.read_text() == "old"
    with whole(target) as hidden:
        hidden.write_text("new")
    assert (target.read_text(), others.read_text()) == ("new", "somebody else's")


def test_text_is_written_as_it_is_and_names_keep_their_bytes(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "ü\n" + os.fsdecode(b"\xff") + "\r\n")
    assert target.read_bytes() == "ü\n".encode() + b"\xff\r\n"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    target = tmp_path / "a.txt"

    def be_overtaken():
        with whole(target, overwrite=False) as hidden:
            hidden.write_text("ours")
            target.write_text("theirs")

    with pytest.raises(OutputExistsError):
        be_overtaken()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_a_pickle_that_runs_code_is_refused_with_what_it_asks_for(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"params": Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"refused.*it asks for (posix|nt)\.system"):
        read_tensors(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("claim", [b"\x8b", b"X", b"B"], ids=["number", "text", "bytes"])
def test_a_pickle_that_claims_more_than_the_file_has_takes_no_memory(tmp_path, claim):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80\x03" + claim + (2**31 - 1).to_bytes(4, "little") + b"abc.")
    with pytest.raises(CheckpointError, match="claims 2147483647 bytes where 4 are left"):
        read_tensors(path)
