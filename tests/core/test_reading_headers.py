"""What a file of weights says of itself, read while a training puts new files in its place."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from relume.core.checkpoints import Header, read_header, write_checkpoint

TURNS = """
import itertools, os, sys
for each in itertools.cycle(sys.argv[1:3]):
    os.link(each, "next")
    os.replace("next", "weights.safetensors")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there an open file cannot be replaced")
def test_a_header_is_that_of_one_file_or_the_other_never_of_both(tmp_path):
    header = Header(model="cfsr", variant="cfsr-x2", config={})
    for size in (8, 9000):
        write_checkpoint(tmp_path / f"{size}.safetensors", {"a": torch.zeros(size)}, header)
    turning = subprocess.Popen(
        [sys.executable, "-c", TURNS, "8.safetensors", "9000.safetensors"], cwd=tmp_path
    )
    try:
        path = tmp_path / "weights.safetensors"
        while not path.exists():
            assert turning.poll() is None
            time.sleep(0.01)
        seen = {read_header(path).sha256 for _ in range(2000)}
    finally:
        os.kill(turning.pid, signal.SIGKILL)
        turning.wait()
    assert seen == {read_header(tmp_path / f"{size}.safetensors").sha256 for size in (8, 9000)}
