"""Attention by contrast and by places: against the plain formulas, and by places in the form for programs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from relume.nn.blueprint import BlueprintConv2d
from relume.nn.feature_attention import ContrastAttention, SpatialAttention, filled_for_places


def attention(narrow=4):
    torch.manual_seed(0)
    look = nn.Sequential(
        BlueprintConv2d(narrow, narrow, bias=True), nn.GELU(), nn.Conv2d(narrow, narrow, 3, padding=1)
    )
    return SpatialAttention(6, narrow, shrink=nn.Conv2d(narrow, narrow, 3, stride=2), look=look)


@torch.no_grad()
def test_contrast_is_mean_and_standard_deviation():
    torch.manual_seed(0)
    layer, x = ContrastAttention(8, 2), torch.randn(2, 8, 5, 7)
    described = x.std((2, 3), correction=0, keepdim=True) + x.mean((2, 3), keepdim=True)
    expected = x * layer.expand(layer.squeeze(described).relu()).sigmoid()
    assert torch.allclose(layer(x), expected, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("size", [(15, 15), (20, 21), (17, 40), (64, 33)])
def test_a_program_computes_what_the_network_does(size):
    layer = attention()
    x = torch.randn(2, 6, *size)
    shrunk = layer.shrink(layer.reduce(x))
    small = layer.look(F.max_pool2d(shrunk, 7, stride=3))
    expected = F.interpolate(small, size, mode="bilinear", align_corners=False)
    found = layer._around_in_a_program(shrunk, height=size[0], width=size[1])
    assert torch.allclose(found, expected, atol=1e-6)
    weighed = x * layer.expand(expected + layer.keep(layer.reduce(x))).sigmoid()
    assert torch.allclose(layer(x), weighed, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (14, 15), (3, 30)])
def test_too_small_is_continued_to_the_least_that_works(size):
    x = torch.rand(1, 3, *size)
    filled = filled_for_places(x)
    assert filled.shape[2:] == tuple(max(side, 15) for side in size)
    assert torch.equal(filled[..., : size[0], : size[1]], x)
    if size[0] == 14:
        assert torch.equal(filled[:, :, 14], x[:, :, 12])


def test_what_is_large_enough_is_not_touched():
    x = torch.rand(1, 3, 15, 16)
    assert filled_for_places(x) is x
