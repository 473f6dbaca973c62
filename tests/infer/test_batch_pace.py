"""How long a batch will still take."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from relume.infer.batch.pace import Pace
from relume.infer.batch.stages import Job, Outcome


def job(number: int, size: int, ending: str = ".jpg") -> Job:
    name = f"{number}{ending}"
    return Job(id=number, source=Path(name), target=Path(name), size=size)


def test_shares_follow_pixels_and_end_at_the_whole():
    pace = Pace({".jpg": (2, 3_000_000), ".png": (1, 9_000_000)})
    assert pace.share() == 0
    assert pace.seconds_left() is None
    # The photo is the larger picture in the smaller file.
    pace.ended(job(0, 2_000_000), Outcome(pixels=16_000_000))
    pace.ended(job(1, 9_000_000, ".png"), Outcome(pixels=4_000_000))
    assert pace.share() == pytest.approx(20 / 28, rel=1e-4)  # a byte of photo is eight pixels, as learnt
    pace.advanced(job(2, 1_000_000), 0.5)
    assert pace.share() == pytest.approx(24 / 28, rel=1e-4)
    pace.ended(job(2, 1_000_000), Outcome(pixels=8_000_000))
    assert pace.share() == pytest.approx(1)


def test_time_left_is_by_the_pace_so_far_and_failures_take_none():
    pace = Pace({".jpg": (4, 4_000)})
    time.sleep(0.05)
    began = time.monotonic()
    pace.ended(job(0, 1_000), Outcome(pixels=10))
    left = pace.seconds_left()
    assert left is not None
    assert left == pytest.approx(3 * (0.05 + time.monotonic() - began), rel=0.5)
    for number in (1, 2, 3):
        pace.ended(job(number, 1_000), Outcome(status="failed"))
    assert pace.share() == pytest.approx(1)
    assert pace.seconds_left() == pytest.approx(0, abs=1e-6)


def test_an_empty_batch_is_whole():
    assert Pace({}).share() == 1
