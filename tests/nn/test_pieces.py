"""Work in pieces gives what it gives in the whole, and really is in pieces."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from relume.nn.pieces import PIXELS, by_pixels, by_rows, in_pieces_pays
from relume.nn.pixelwise import PixelConv2d, PixelLinear, pixelwise


def counted(function):
    """A function, and the sizes that it was called with."""
    sizes = []

    def calling(*tensors):
        sizes.append(tuple(tensors[0].shape))
        return function(*tensors)

    return calling, sizes


@pytest.mark.parametrize("pixels", [1, PIXELS, PIXELS + 1, 3 * PIXELS - 5])
def test_pixels_in_pieces(pixels):
    first, second = torch.rand(2, pixels, 3), torch.rand(2, pixels, 3)
    function, sizes = counted(lambda x, y: torch.cat([x * y, x], 2))
    with torch.no_grad():
        output = by_pixels(function, first, second)
    assert torch.equal(output, torch.cat([first * second, first], 2))
    assert len(sizes) == -(-pixels // PIXELS)
    assert max(size[1] for size in sizes) <= PIXELS


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("height", "width"), [(3, 5), (90, 70), (4, 3 * PIXELS)])
def test_rows_in_pieces_have_no_seams(height, width, last):
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(2, 1, 3, padding=1))
    picture = torch.rand(1, 2, height, width, generator=generator)
    if last:
        layers, picture = (
            layers.to(memory_format=torch.channels_last),
            picture.to(memory_format=torch.channels_last),
        )
    function, sizes = counted(layers)
    with torch.no_grad():
        output, whole = by_rows(function, picture, halo=2, scale=2), layers(picture)
    assert torch.allclose(output, whole, atol=1e-6)
    assert (len(sizes) > 1) == (height * width > PIXELS and height > 8)


@pytest.mark.parametrize(("pixels", "pieces"), [(PIXELS, 2), (PIXELS // 2, 4), (1, 8)])
def test_pieces_are_as_small_as_they_are_wanted(pixels, pieces):
    picture = torch.rand(1, 2, 64, 64)
    layer = nn.Conv2d(2, 3, 5, padding=2)
    function, sizes = counted(layer)
    with torch.no_grad():
        output, whole = by_rows(function, picture, halo=2, pixels=pixels), layer(picture)
    assert torch.allclose(output, whole, atol=1e-6)
    assert len(sizes) == pieces  # of four halos at least


def test_gradients_need_the_whole():
    picture = torch.rand(1, 2, 90, 70)
    function, sizes = counted(nn.Conv2d(2, 2, 3, padding=1))
    by_rows(function, picture, halo=1)
    assert len(sizes) == 1
    assert not in_pieces_pays(picture)
    with torch.no_grad():
        assert in_pieces_pays(picture)


@pytest.mark.parametrize("pixels", [(64, 96), (6144,), (7,), (1 << 14, 1), (9973,)])
def test_linear_layers_of_pixels_are_linear_layers(pixels):
    torch.manual_seed(0)
    layer = PixelLinear(40, 60)
    x = torch.randn(*pixels, 40, requires_grad=True)
    expected = F.linear(x, layer.weight, layer.bias)
    output = layer(x)
    assert output.shape == expected.shape
    assert torch.allclose(output, expected, atol=1e-5)
    toward = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, *layer.parameters()), toward)
    for ours, theirs in zip(
        torch.autograd.grad(output, (x, *layer.parameters()), toward), wanted, strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-3)
    assert torch.allclose(pixelwise(x, layer.weight), expected - layer.bias, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_convolutions_of_pixels_are_convolutions(last):
    torch.manual_seed(0)
    layer = PixelConv2d(24, 48)
    x = torch.randn(2, 24, 64, 64)
    x = x.to(memory_format=torch.channels_last) if last else x
    expected = F.conv2d(x, layer.weight, layer.bias)
    output = layer(x)
    assert torch.allclose(output, expected, atol=1e-5)
    assert output.is_contiguous(memory_format=torch.channels_last) == last
    assert layer.weight.shape == (48, 24, 1, 1)
