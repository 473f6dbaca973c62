"""The figure is what shrinking the written output gives, however the output comes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.infer.consistency import Consistency, consistency, in_words
from relume.measures.psnr import psnr
from relume.nn.resize import imresize


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 30), columns=st.integers(1, 30), channels=st.sampled_from([1, 3]),
    times=st.floats(0.3, 5), bits=st.sampled_from([8, 10, 16]), cut=st.integers(1, 149),
)  # fmt: skip
def test_it_is_the_psnr_of_the_shrunk_levels(rows, columns, channels, times, bits, cut):
    generator = torch.Generator().manual_seed(rows)
    low = torch.rand(channels, rows, columns, generator=generator)
    height, width = (max(1, round(times * each)) for each in (rows, columns))
    output = 1.4 * torch.rand(channels, height, width, generator=generator) - 0.2
    levels = (output.double().clamp(0, 1) * (2**bits - 1) + 0.5).floor() / (2**bits - 1)
    expected = psnr(imresize(levels, height=rows, width=columns), low, peak=1.0)
    given_by = Consistency(
        lambda top, bottom: low[:, top:bottom], tuple(low.shape), height=height, width=width, bits=bits
    )
    given_by.push(output[:, :cut])
    given_by.push(output[:, cut:])
    assert given_by.decibels == pytest.approx(expected, abs=0.01)
    assert consistency(low, output, bits=bits) == pytest.approx(expected, abs=0.01)


def test_what_is_the_same_is_exact():
    """Bits count: levels of 16 bits are not met by 8."""
    low = torch.randint(0, 256, (3, 7, 9)) / 255
    assert consistency(low, low, bits=8) == math.inf
    flat = torch.full((1, 1, 1), 77 / 255).expand(1, 5, 4)
    enlarged = torch.full((1, 1, 1), 77 / 255).expand(1, 20, 16)
    assert in_words(consistency(flat, enlarged, bits=8)) == "exact"
    between = torch.full((1, 5, 4), 1000 / 65535)
    enlarged = torch.full((1, 20, 16), 1000 / 65535)
    assert in_words(consistency(between, enlarged, bits=16)) == "exact"
    assert 60 < consistency(between, enlarged, bits=8) < 70


def test_the_figure_waits_for_the_last_row():
    low = torch.rand(1, 6, 6)
    compared = Consistency(lambda top, bottom: low[:, top:bottom], (1, 6, 6), height=12, width=12, bits=8)
    compared.push(torch.rand(1, 11, 12))
    with pytest.raises(ValueError, match="rows have been compared"):
        _ = compared.decibels


def test_the_input_is_left_alone():
    low, output = torch.rand(1, 6, 6), 2 * torch.rand(1, 12, 12)
    kept = low.clone(), output.clone()
    consistency(low, output, bits=8)
    assert torch.equal(low, kept[0])
    assert torch.equal(output, kept[1])


@pytest.mark.parametrize(
    ("decibels", "words"), [(math.inf, "exact"), (99.0, "exact"), (98.94, "98.9 dB"), (44.0, "44.0 dB")]
)
def test_words(decibels, words):
    assert in_words(decibels) == words
