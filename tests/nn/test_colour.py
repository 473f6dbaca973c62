"""Luma and chroma against the values that MATLAB's documentation implies for the primaries."""

import pytest
import torch

from relume.nn.colour import gray_to_y, rgb_to_y, rgb_to_ycbcr, y_to_gray, ycbcr_to_rgb


@pytest.mark.parametrize(
    ("rgb", "luma", "blue", "red"),
    [
        ((0, 0, 0), 16.0, 128.0, 128.0),
        ((1, 1, 1), 235.0, 128.0, 128.0),
        ((1, 0, 0), 81.481, 90.203, 240.0),
        ((0, 1, 0), 144.553, 53.797, 34.214),
        ((0, 0, 1), 40.966, 240.0, 109.786),
    ],
)
def test_primaries(rgb, luma, blue, red):
    picture = torch.tensor(rgb, dtype=torch.float64).reshape(3, 1, 1)
    assert rgb_to_y(picture * 255, peak=255).item() == pytest.approx(luma, abs=1e-9)
    assert rgb_to_y(picture).item() == pytest.approx(luma / 255, abs=1e-9)
    assert (rgb_to_ycbcr(picture) * 255).flatten().tolist() == pytest.approx([luma, blue, red], abs=1e-9)


def test_there_and_back():
    picture = torch.rand(2, 3, 5, 6) * 1.4 - 0.2
    planes = rgb_to_ycbcr(picture)
    assert (ycbcr_to_rgb(planes) - picture).abs().max() <= 1e-6
    assert (planes[:, :1] - rgb_to_y(picture)).abs().max() <= 1e-6
    gray = torch.rand(2, 1, 5, 6)
    assert (gray_to_y(gray) - rgb_to_y(gray.expand(-1, 3, -1, -1))).abs().max() <= 1e-6
    assert (y_to_gray(gray_to_y(gray)) - gray).abs().max() <= 1e-6


def test_colours_used_without_gradients_take_part_in_training_later():
    with torch.inference_mode():
        ycbcr_to_rgb(rgb_to_ycbcr(torch.rand(1, 3, 2, 2)))
    picture = torch.rand(1, 3, 2, 2, requires_grad=True)
    ycbcr_to_rgb(rgb_to_ycbcr(picture)).square().sum().backward()
    assert (picture.grad - 2 * picture.detach()).abs().max() <= 1e-5


@pytest.mark.parametrize("convert", [rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb])
def test_shapes_and_refusals(convert):
    batch = torch.rand(2, 4, 3, 5, 6)
    planes = convert(batch)
    assert planes.shape == (2, 4, 1 if convert is rgb_to_y else 3, 5, 6)
    torch.testing.assert_close(planes[1, 2], convert(batch[1, 2]))
    with pytest.raises(ValueError, match=r"\(1, 5, 6\)"):
        convert(torch.rand(1, 5, 6))
    with pytest.raises(TypeError, match="uint8"):
        convert(torch.zeros(3, 5, 6, dtype=torch.uint8))
