"""What work takes: the faster of two times, the first result, and long work only once."""

import sys
import time

import torch

from relume.core import expense
from relume.core.expense import expense_of


def test_brief_work_is_done_twice_and_the_faster_time_counts():
    waits = [0.2, 0.01]

    def work():
        time.sleep(waits[0])
        return waits.pop(0)

    result, taken = expense_of(work, device="cpu")
    assert (result, waits) == (0.2, [])
    assert 0.01 <= taken.seconds < 0.2


def test_long_work_is_done_once(monkeypatch):
    monkeypatch.setattr(expense, "BRIEF", 0.0)
    results = [1, 2]
    assert expense_of(lambda: results.pop(0), device="cpu")[0] == 1
    assert results == [2]


def test_memory_is_that_of_the_work():
    _, taken = expense_of(lambda: float(torch.ones(32 << 20).sum()), device="cpu")
    if sys.platform == "linux":
        assert 0.9 * (128 << 20) < taken.memory < 2 * (128 << 20)
    else:
        assert taken.memory is None
