"""Luma against the values that MATLAB's documentation implies for the primaries."""

import pytest
import torch

from relume.measures.colour import rgb_to_y


@pytest.mark.parametrize(
    ("rgb", "luma"),
    [
        ((0, 0, 0), 16.0),
        ((1, 1, 1), 235.0),
        ((1, 0, 0), 81.481),
        ((0, 1, 0), 144.553),
        ((0, 0, 1), 40.966),
    ],
)
def test_primaries(rgb, luma):
    picture = torch.tensor(rgb, dtype=torch.float64).reshape(3, 1, 1)
    assert rgb_to_y(picture * 255, peak=255).item() == pytest.approx(luma, abs=1e-9)
    assert rgb_to_y(picture).item() == pytest.approx(luma / 255, abs=1e-9)


def test_shapes_and_refusals():
    batch = torch.rand(2, 4, 3, 5, 6)
    luma = rgb_to_y(batch)
    assert luma.shape == (2, 4, 1, 5, 6)
    torch.testing.assert_close(luma[1, 2], rgb_to_y(batch[1, 2]))
    with pytest.raises(ValueError, match=r"\(1, 5, 6\)"):
        rgb_to_y(torch.rand(1, 5, 6))
    with pytest.raises(TypeError, match="uint8"):
        rgb_to_y(torch.zeros(3, 5, 6, dtype=torch.uint8))
