"""The published decision in its several forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relume.nn.routing import Router, cluster, exceeds, threshold_of_costs

SHARES = st.floats(0.05, 0.45)


@given(SHARES, st.floats(-10, 10), st.floats(0.001, 0.999))
def test_threshold_is_the_larger_probability_by_cost(light, k, probability):
    heavy = 1 - light
    scores = (1 - probability) / light**k, probability / heavy**k
    threshold = threshold_of_costs(light, heavy, k)
    if abs(probability - threshold) > 1e-9:
        assert (probability > threshold) == (scores[1] > scores[0])


def test_no_preference_is_one_half():
    assert threshold_of_costs(0.2, 0.8, 0.0) == 0.5


def test_probability_is_of_the_second_class():
    logits = torch.tensor([[0.0, 100.0], [3.0, 3.0]])
    assert Router()(logits).tolist() == [1.0, 0.5]


def test_at_full_effort_even_a_probability_of_zero_is_heavy():
    assert exceeds(torch.zeros(3), 1.0).all()
    assert not exceeds(torch.ones(3), 0.0).any()


@pytest.mark.parametrize("size", [2, 50, 5000])
def test_clusters_are_a_fixed_point_of_two_means(size):
    torch.manual_seed(size)
    values = torch.cat([torch.rand(1, size) * 0.3, 0.5 + torch.rand(1, size // 2) * 0.5], 1)
    heavy = cluster(values)[0]
    low, high = values[0][~heavy].mean(), values[0][heavy].mean()
    nearer_high = (values[0] - high).abs() < (values[0] - low).abs()
    # The published tolerance stops a little early.
    assert (nearer_high != heavy).float().mean() <= 0.02
    assert heavy[values[0].argmax()]
    assert not heavy[values[0].argmin()]


def test_pictures_of_one_probability_have_no_heavy_pixel():
    assert not cluster(torch.full((2, 9), 0.7)).any()
