"""What work takes is told apart from what was held before."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from relume.core.machine import peak_memory
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it")
def test_the_peak_of_the_process_is_not_forgotten():
    np.ones(300 * MEGABYTE, np.uint8)
    before = peak_memory()
    with memory_taken("cpu"):
        pass
    assert peak_memory() >= before > 300 * MEGABYTE


def test_a_system_that_does_not_tell_is_said_to(monkeypatch):
    monkeypatch.setattr("relume.core.memory.forget_peak", lambda: False)
    with memory_taken("cpu") as taken:
        pass
    assert taken.bytes is None
