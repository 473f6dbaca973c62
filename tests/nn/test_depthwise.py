"""The large depthwise convolution's own weight gradient against PyTorch's."""

import pytest
import torch
from torch import nn

from relume.nn.depthwise import LargeDepthwiseConv2d


@pytest.mark.parametrize("kernel_size", [5, 7, 9, 11])
def test_output_and_gradients_are_those_of_a_plain_convolution(kernel_size):
    torch.manual_seed(0)
    layer = LargeDepthwiseConv2d(6, kernel_size).double()
    x = torch.randn(2, 6, 13, 10, dtype=torch.float64, requires_grad=True)
    output, plain = layer(x), nn.Conv2d.forward(layer, x)
    assert torch.equal(output, plain)
    weighting = torch.randn_like(output)
    ours = torch.autograd.grad(output, [x, *layer.parameters()], weighting)
    theirs = torch.autograd.grad(plain, [x, *layer.parameters()], weighting)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-10


def test_first_layer_asks_for_no_input_gradient():
    layer = LargeDepthwiseConv2d(4, 9)
    layer(torch.rand(1, 4, 8, 8)).sum().backward()
    assert layer.weight.grad is not None


def test_mixed_precision_gradients_stay_close():
    torch.manual_seed(0)
    layer = LargeDepthwiseConv2d(8, 9)
    x = torch.randn(2, 8, 12, 12)
    (full,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    (mixed,) = torch.autograd.grad(output.float().square().sum(), layer.weight)
    assert (full - mixed).abs().max() <= 0.05 * full.abs().max()
