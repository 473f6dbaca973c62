"""JPEG in PyTorch against the real codec, and noise against what it says of itself."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from relume.core.errors import ConfigError
from relume.data.degradations import noise
from relume.data.degradations.blur import convolve
from relume.data.degradations.jpeg import JpegConfig, jpeg, jpeg_codec, smooth_round, tables
from relume.data.degradations.kernels import gaussian
from relume.data.degradations.noise import NoiseConfig


def picture(height=70, width=91, channels=3, seed=0):
    """Return something with edges, ramps and a little grain, as photos have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(channels, height // 8 + 2, width // 8 + 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse[None], size=(height, width), mode="bicubic")[0]
    edges = (convolve(torch.rand(1, height, width, generator=generator), gaussian(13, 3.0)) > 0.5).float()
    return (0.6 * smooth + 0.3 * edges + 0.02 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [5, 30, 49, 50, 75, 95, 100])
@pytest.mark.parametrize("size", [(64, 96), (70, 91), (1, 1), (17, 3)])
def test_pytorchs_is_the_codecs_but_for_rounding(channels, quality, size):
    x = picture(*size, channels)
    difference = 255 * (jpeg(x[None], quality)[0] - jpeg_codec(x, quality)).abs()
    assert difference.mean() < (1 if x.numel() < 1000 else 0.5)
    # One coefficient in hundreds falls to the other side of a half, as libjpeg computes in whole numbers.
    assert x.numel() < 1000 or (difference > 2.5).float().mean() < 0.08
    damage = 255 * (x - jpeg_codec(x, quality)).abs()
    assert quality == 100 or x.numel() < 1000 or difference.mean() < damage.mean() / 4


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 90, 100])
def test_tables_are_those_in_a_file(quality):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "jpeg", quality=quality)
    ours = tables(quality, device=torch.device("cpu"))
    for number, table in enumerate(ours):
        assert table.flatten().int().tolist() == list(Image.open(file).quantization[number])


def test_each_picture_of_a_batch_has_its_quality():
    x = torch.stack([picture(seed=seed) for seed in (1, 2)])
    both = jpeg(x, torch.tensor([20.0, 80.0]))
    assert torch.allclose(both[0], jpeg(x[:1], 20.0)[0])
    assert torch.allclose(both[1], jpeg(x[1:], 80.0)[0])
    assert (both[0] - x[0]).abs().mean() > 1.5 * (both[1] - x[1]).abs().mean()


@pytest.mark.parametrize(
    "compress", [jpeg_codec, lambda x, quality, offset: jpeg(x[None], quality, offset=offset)[0]]
)
def test_blocks_begin_where_they_are_told(compress):
    """A part of a picture, told where it lies in the grid, is compressed as in the whole."""
    x = picture(96, 112)
    whole = compress(x, 40, offset=(0, 0))
    part = compress(x[:, 21:, 38:], 40, offset=(21 % 16, 38 % 16))
    assert torch.equal(part[:, 16:, 16:], whole[:, 37:, 54:])
    assert not torch.equal(compress(x[:, 21:, 38:], 40, offset=(0, 0))[:, 16:, 16:], whole[:, 37:, 54:])


def test_smooth_rounding_lets_gradients_pass():
    x = picture(32, 32)[None].requires_grad_()
    jpeg(x, 50, smooth=True).square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).float().mean() > 0.9
    hard = picture(32, 32)[None].requires_grad_()
    jpeg(hard, 50).square().sum().backward()
    assert hard.grad is None or not hard.grad.any()
    assert (jpeg(x, 50, smooth=True) - jpeg(x, 50)).abs().mean() < 4 / 255
    values = torch.linspace(-3, 3, 601)
    assert (smooth_round(values) - values.round()).abs().max() <= 0.126


def test_the_degradation_spoils_its_margin_alone():
    x = picture(112, 112)[None]
    damage = JpegConfig(quality=35).build(1)
    low = damage(x, generator=torch.Generator().manual_seed(3))
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(3)))
    own = torch.Generator().manual_seed(seed)
    torch.randint(35, 36, (), generator=own)
    top, left = torch.randint(16, (2,), generator=own).tolist()
    # The same grid over a picture that goes on beyond the patch.
    wide = torch.nn.functional.pad(x, (32, 32, 32, 32), mode="reflect")
    whole = jpeg_codec(wide[0], 35, offset=(top, left))[:, 32:-32, 32:-32]
    assert torch.equal(low[0, :, 16:-16, 16:-16], whole[:, 16:-16, 16:-16])
    with pytest.raises(ConfigError, match="scale 1, not 2"):
        JpegConfig().build(2)


def test_noise_has_the_strength_it_says():
    x = torch.full((3, 200, 200), 0.5)
    own = torch.Generator().manual_seed(0)
    colour = noise.gaussian(x.shape, sigma=0.05, gray=False, generator=own)
    gray = noise.gaussian(x.shape, sigma=0.05, gray=True, generator=own)
    assert (colour.shape, gray.shape) == ((3, 200, 200), (1, 200, 200))
    assert (colour.std().item(), gray.std().item()) == pytest.approx((0.05, 0.05), rel=0.02)
    covariance = torch.tensor([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]]) / 1000
    field = noise.correlated(x.shape, covariance=covariance, generator=own)
    assert np.allclose(np.cov(field.flatten(1)), covariance, atol=1e-4)
    assert noise.multiplied(x, colour).sub(x).std().item() == pytest.approx(0.025, rel=0.02)


@pytest.mark.parametrize("gray", [False, True])
def test_counted_light_has_the_variance_of_its_mean(gray):
    x = torch.full((3, 200, 200), 102 / 255)
    own = torch.Generator().manual_seed(0)
    error = noise.shot(x, peak=1000, gray=gray, generator=own) - x
    assert error.mean().item() == pytest.approx(0, abs=5e-4)
    assert error.std().item() == pytest.approx((0.4 / 1000) ** 0.5, rel=0.03)
    assert torch.allclose(error[0], error[1], atol=1e-6) == gray
    ramp = (torch.arange(256) / 255).repeat(3, 200, 1)
    error = noise.scaled_shot(ramp, strength=2.0, gray=gray, generator=own) - ramp
    assert error[..., 128].std().item() == pytest.approx(2 * (0.5 / 256) ** 0.5, rel=0.15)


def test_plain_noise_is_drawn_for_each_picture():
    x = torch.full((40, 3, 32, 32), 0.5)
    low = NoiseConfig(level=(10, 30), gray=0.5).build(1)(x, generator=torch.Generator().manual_seed(0))
    levels = 255 * (low - x).std((1, 2, 3))
    assert 9 < levels.min() < 13 < 27 < levels.max() < 32
    alike = [torch.equal(each[0], each[1]) for each in low]
    assert 10 < sum(alike) < 30
