"""Several pictures from one network: which there are, which is shown, and the plain network of one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from relume.models.restoration.nafnet import NAFNet, NAFNetConfig
from relume.nn.heads import Heads, HeadsConfig

SMALL = {"width": 4, "encoders": (1,), "decoders": (1,), "patch": None}


def network(**heads):
    torch.manual_seed(0)
    made = NAFNet(NAFNetConfig(**SMALL, heads=heads)).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.2 * torch.randn_like(value))
    return made


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 6))
def test_pictures_are_heads_or_means_of_two_added_to_the_input(count, channels, side):
    residual, image = torch.randn(2, count * channels, side, 4), torch.rand(2, channels, side, 4)
    each = residual.reshape(2, count, channels, side, 4)
    separate = Heads(HeadsConfig(count=count))(residual, image)
    assert torch.allclose(separate, image[:, None] + each)
    combined = Heads(HeadsConfig(count=count, combined=True))(residual, image)
    assert combined.shape[1] == count * (count + 1) // 2
    expected = [(each[:, i] + each[:, j]) / 2 for i in range(count) for j in range(i + 1)]
    assert torch.allclose(combined, image[:, None] + torch.stack(expected, 1))


@pytest.mark.parametrize("shown", range(6))
@torch.no_grad()
def test_the_shown_picture_is_the_configured_or_that_of_the_best_record(shown):
    x = torch.rand(2, 3, 9, 7)
    by_config = network(count=3, combined=True, shown=shown)
    every = by_config.every(x)
    assert torch.equal(by_config(x), every[:, shown])
    by_record = network(count=3, combined=True)
    assert torch.equal(by_record(x), every[:, 0])
    by_record.heads.settle(torch.tensor([1.0 - (index == shown) for index in range(6)]))
    assert torch.equal(by_record(x), every[:, shown])
    # What runs in use is a plain network of that picture.
    for some in (by_config, by_record):
        folded = some.folded()
        assert (folded(x) - every[:, shown]).abs().max() <= 1e-5
        assert folded.ending.out_channels == 3
        assert some.ending.out_channels == 9


@torch.no_grad()
def test_the_record_travels_with_the_weights_and_authors_weights_have_none():
    x = torch.rand(1, 3, 8, 8)
    some = network(count=2, combined=True)
    some.heads.remember(torch.tensor([3.0, 1.0, 2.0]))
    assert torch.equal(some(x), some.every(x)[:, 1])
    other = NAFNet(some.config).eval()
    other.load_state_dict(some.state_dict())
    assert torch.equal(other(x), some(x))
    bare = {name: value for name, value in some.state_dict().items() if name != "heads.record"}
    other.load_state_dict(bare)
    assert torch.equal(other(x), some.every(x)[:, 0])
    assert "heads.record" not in network().state_dict()


def test_the_record_is_a_running_mean():
    heads = Heads(HeadsConfig(count=2))
    for _ in range(2000):
        heads.remember(torch.tensor([-20.0, -30.0]))
    assert torch.allclose(heads.record, torch.tensor([-20.0, -30.0]), atol=1e-3)
    heads.remember(torch.tensor([-20.0, 70.0]))
    assert heads.record[1].item() == pytest.approx(-29.0, abs=1e-2)


@torch.no_grad()
def test_one_head_of_several_convolutions_is_a_mean_of_their_kernels():
    heads = Heads(HeadsConfig(count=3, combined=True, shown=4))  # the second and third
    last = nn.Conv2d(5, 9, 3, bias=False)
    features, image = torch.rand(1, 5, 8, 8), torch.zeros(1, 3, 6, 6)
    assert torch.allclose(heads.alone(last)(features), heads(last(features), image)[:, 4], atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"count": 2, "shown": 2}, {"count": 3, "combined": True, "shown": 6}, {"number": 2}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        HeadsConfig(**wrong)
