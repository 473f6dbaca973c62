"""Processes of a training leave together: none while another works, and none still bound to the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def test_processes_wait_for_each_other_and_leave_their_group(tmp_path, photos):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "parting.py"), str(tmp_path)],
        capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    def told(what):
        return [json.loads((tmp_path / f"{what}-{rank}.json").read_text()) for rank in range(2)]

    # The first process writes the weights when the last step is done; the second has nothing to do then.
    assert told("trained") == [{"weights": True, "group": False}] * 2
    assert told("tried") == [{"weights": False, "group": False}] * 2
