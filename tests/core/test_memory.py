"""What work takes is told apart from what was held before."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from relume.core.memory import memory_taken

MEGABYTE = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it")
def test_the_largest_amount_in_use_at_once_is_told():
    held = np.ones(50 * MEGABYTE, np.uint8)
    for megabytes in (200, 40):  # the second time, the first one's peak is forgotten
        with memory_taken("cpu") as taken:
            assert taken.bytes is None
            for _ in range(3):
                np.ones(megabytes * MEGABYTE, np.uint8)
        assert taken.bytes is not None
        assert (megabytes - 8) * MEGABYTE <= taken.bytes <= (megabytes + 30) * MEGABYTE
    assert held.all()


def test_a_system_that_does_not_tell_is_said_to(monkeypatch, tmp_path):
    monkeypatch.setattr("relume.core.memory._RESET", tmp_path / "no" / "such" / "file")
    with memory_taken("cpu") as taken:
        pass
    assert taken.bytes is None
