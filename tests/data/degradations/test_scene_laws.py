"""What damages by light and weather promise: the physical laws of the scene that they follow."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seeding import noise, seeded

from relume.apps.commands.demo import PHOTO
from relume.core.pictures import read
from relume.data.degradations.fields import fractal, gaussian_blurred, scattered, scene_distance
from relume.data.degradations.haze import HazeConfig
from relume.data.degradations.light import to_linear
from relume.data.degradations.low_light import LowLightConfig
from relume.data.degradations.rain import RainConfig, streak
from relume.data.degradations.shadow import ShadowConfig
from relume.data.degradations.snow import SnowConfig
from relume.data.degradations.underwater import LEFT_PER_METRE, UnderwaterConfig

# Haze


@settings(max_examples=20, deadline=None)
@given(
    density=st.floats(0, 3), airlight=st.floats(0, 1), strength=st.floats(0, 2), seed=st.integers(0, 2**40)
)
def test_haze_is_koschmieders_law(density, airlight, strength, seed):
    high, distance = noise(2, 3, 12, 14), noise(2, 1, 12, 14)
    haze = HazeConfig(density=density, airlight=airlight, tint=0, strength=strength).build(1)
    hazy = haze(high, generator=seeded(seed), distance=distance)
    passed = torch.exp(-strength * density * distance)
    assert (hazy - (high * passed + airlight * (1 - passed))).abs().max() < 1e-5


def test_the_clean_picture_comes_back_by_the_law():
    high, distance = noise(1, 3, 20, 20), noise(1, 1, 20, 20)
    hazy = HazeConfig(density=1.5, airlight=0.8, tint=0).build(1)(high, generator=seeded(), distance=distance)
    passed = torch.exp(-1.5 * distance)
    assert ((hazy - 0.8 * (1 - passed)) / passed - high).abs().max() < 1e-5


def test_an_invented_scene_recedes_upwards_and_fills_0_to_1():
    distances = torch.stack([scene_distance(noise(3, 60, 80), seeded(seed)) for seed in range(30)])
    assert distances.shape == (30, 1, 60, 80)
    assert (distances.amin(dim=(1, 2, 3)) == 0).all()
    assert torch.allclose(distances.amax(dim=(1, 2, 3)), torch.ones(30))
    top, bottom = distances[:, :, :20].mean(dim=(1, 2, 3)), distances[:, :, 40:].mean(dim=(1, 2, 3))
    assert (top > bottom + 0.1).float().mean() > 0.9


# Rain


@pytest.mark.parametrize("channels", [1, 3])
def test_rain_is_added(channels):
    rain = RainConfig(veil=0).build(1)
    high = 0.3 * noise(1, channels, 64, 64)
    black = rain(torch.zeros_like(high), generator=seeded())
    low = rain(high, generator=seeded())
    assert black.max() > 0.1
    assert (low - (high + black).clamp(max=1)).abs().max() < 1e-5


def test_screened_rain_is_light_through_light():
    rain = RainConfig(veil=0, composition="screen").build(1)
    high = noise(1, 3, 64, 64)
    black = rain(torch.zeros_like(high), generator=seeded())
    assert (rain(high, generator=seeded()) - (1 - (1 - high) * (1 - black))).abs().max() < 1e-5


def test_the_veil_alone_is_haze_of_one_distance():
    rain = RainConfig(veil=0.7, density=0).build(1)
    high = noise(1, 3, 16, 16)
    passed = math.exp(-0.7)
    air = (rain(high, generator=seeded()) - high * passed) / (1 - passed)
    assert air.std() < 1e-5
    assert 0.6 <= air.mean() <= 0.8


def test_denser_rain_holds_the_thinner_one():
    light, heavy = (
        RainConfig(veil=0, density=density).build(1).streaks(80, 80, seeded()) for density in (200.0, 800.0)
    )
    assert (heavy - light).min() > -1e-5
    assert heavy.mean() > 2 * light.mean()


@settings(max_examples=20, deadline=None)
@given(length=st.floats(5, 80), width=st.floats(0.3, 4), slant=st.floats(-45, 45))
def test_a_streak_is_as_long_and_slanted_as_asked(length, width, slant):
    drawn = streak(length, width, slant)
    reach = drawn.shape[0] // 2
    grid = torch.arange(-reach, reach + 1.0)
    rows, columns = grid.unsqueeze(1), grid.unsqueeze(0)
    assert drawn.max().item() == pytest.approx(min(1, width / 1.2), rel=1e-4)
    if length > 6 * width:
        spread = torch.stack([(drawn * a * b).sum() for a in (rows, columns) for b in (rows, columns)]).view(
            2, 2
        )
        down, right = torch.linalg.eigh(spread.double())[1][:, 1].tolist()
        found = math.degrees(math.atan2(right, down)) % 180
        assert min(abs(found - slant % 180), 180 - abs(found - slant % 180)) < 2
    along = rows * math.cos(math.radians(slant)) + columns * math.sin(math.radians(slant))
    assert drawn[along.abs() > length / 2].sum() == 0


def test_particles_are_as_many_as_asked():
    layer = scattered(400, 500, torch.ones(1, 1), count=1e4, random=seeded())
    assert (layer > 0.1).sum().item() == pytest.approx(2000, rel=0.1)


# Low light


@settings(max_examples=20, deadline=None)
@given(stops=st.floats(0, 8))
def test_a_stop_halves_the_light(stops):
    high = noise(1, 3, 9, 11)
    dark = LowLightConfig(stops=stops, warmth=0, gamma=1, shot=0, read=0).build(1)
    low = dark(high, generator=seeded())
    assert (to_linear(low) - to_linear(high) * 2**-stops).abs().max() < 1e-5


def test_gamma_is_a_curve_of_stored_values():
    high = noise(1, 3, 9, 11)
    low = LowLightConfig(stops=0, warmth=0, gamma=2, shot=0, read=0).build(1)(high, generator=seeded())
    assert (low - high**2).abs().max() < 1e-4


def test_warm_light_has_more_red_and_less_blue():
    high = torch.full((1, 3, 4, 4), 0.5)
    low = LowLightConfig(stops=1, warmth=0.5, gamma=1, shot=0, read=0).build(1)(high, generator=seeded())
    red, green, blue = (to_linear(low)[0] / to_linear(high)[0]).mean(dim=(1, 2)).tolist()
    assert (red, green, blue) == pytest.approx((2**-0.5, 2**-1, 2**-1.5), rel=1e-3)


def test_noise_does_not_shrink_with_the_light():
    """Darker by four stops, the ratio of light to noise falls by at least four (shot) to sixteen (read)."""
    high = torch.full((1, 3, 100, 100), 0.5)
    ratios = []
    for stops in (0.0, 4.0):
        config = LowLightConfig(stops=stops, warmth=0, gamma=1, shot=5e-4, read=1e-6)
        light = to_linear(config.build(1)(high, generator=seeded()))
        ratios.append((light.mean() / light.std()).item())
    assert ratios[0] / ratios[1] > 4


# Shadow


@settings(max_examples=15, deadline=None)
@given(
    darkness=st.floats(0, 1),
    seed=st.integers(0, 2**40),
    shape=st.sampled_from(["blob", "polygon", "foliage"]),
)
def test_a_shadow_leaves_the_skys_share_of_the_light(darkness, seed, shape):
    high = noise(1, 3, 40, 48)
    cast = ShadowConfig(shapes=(shape,), darkness=darkness, blueness=0).build(1)
    mask = cast.masks(high, generator=seeded(seed))
    low = cast(high, generator=seeded(seed))
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert (to_linear(low) - to_linear(high) * (1 - darkness * mask)).abs().max() < 1e-5


def test_the_skys_light_is_bluer():
    high = torch.full((1, 3, 64, 64), 0.6)
    cast = ShadowConfig(darkness=0.6, blueness=0.2, penumbra=0).build(1)
    deep = (cast.masks(high, generator=seeded()) > 0.999)[0, 0]
    assert deep.any()
    red, green, blue = (
        to_linear(cast(high, generator=seeded()))[0, :, deep] / to_linear(high)[0, :, deep]
    ).mean(1)
    assert (float(red), float(green), float(blue)) == pytest.approx((0.32, 0.40, 0.48), rel=0.01)


def test_edges_are_as_soft_as_asked():
    high = torch.zeros(4, 3, 96, 96)
    hard, soft = (
        ShadowConfig(penumbra=penumbra).build(1).masks(high, generator=seeded()) for penumbra in (0.0, 0.05)
    )
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    steps = [(mask[..., 1:] - mask[..., :-1]).abs().max() for mask in (hard, soft)]
    assert steps[1] < 0.2 * steps[0]


# Snow


def test_snow_is_laid_over_by_its_opacity():
    snow = SnowConfig(veil=0, density=1000).build(1)
    high = noise(1, 3, 80, 80)
    flakes = snow.masks(high, generator=seeded())
    black = snow(torch.zeros_like(high), generator=seeded())
    assert flakes.max() > 0.5
    assert (snow(high, generator=seeded()) - (high * (1 - flakes) + black)).abs().max() < 1e-5


# Underwater


@pytest.mark.parametrize("water", LEFT_PER_METRE)
def test_red_goes_first_except_in_the_most_turbid_water(water):
    sea = UnderwaterConfig(waters=(water,), distance=0, depth=5).build(1)
    low = to_linear(sea(torch.ones(1, 3, 6, 6), generator=seeded()))[0].mean(dim=(1, 2))
    left = torch.tensor(LEFT_PER_METRE[water])
    assert torch.allclose(low, (left / left.max()) ** 5, atol=1e-4)
    assert low.argmin() == left.argmin()


@settings(max_examples=20, deadline=None)
@given(metres=st.floats(0, 30), depth=st.floats(0, 20), scattered=st.floats(0, 1))
def test_the_scene_comes_back_from_the_water(metres, depth, scattered):
    high, distance = noise(1, 3, 10, 12), noise(1, 1, 10, 12)
    sea = UnderwaterConfig(waters=("II",), distance=metres, depth=depth, scattered=scattered).build(1)
    low = to_linear(sea(high, generator=seeded(), distance=distance))
    left = torch.tensor(LEFT_PER_METRE["II"]).view(1, 3, 1, 1)
    passed = left ** (metres * distance)
    own = scattered * left.max().log() / left.log()
    expected = (to_linear(high) * passed + own * (1 - passed)) * (left / left.max()) ** depth
    assert (low - expected).abs().max() < 1e-5


# Fields


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), cells=st.integers(1, 8), seed=st.integers(0, 2**40)
)
def test_a_fractal_has_its_size_and_fills_0_to_1(height, width, cells, seed):
    field = fractal(height, width, seeded(seed), cells=cells)
    assert field.shape == (height, width)
    assert field.min() == 0
    assert field.max() <= 1 + 1e-6
    assert height * width == 1 or field.max() > 0.999


def test_a_rougher_fractal_has_more_detail():
    steps = [
        (field[1:] - field[:-1]).abs().mean().item()
        for field in (
            fractal(90, 90, seeded(), cells=2, roughness=roughness) for roughness in (0.0, 0.3, 0.6)
        )
    ]
    assert steps[0] < 0.9 * steps[1]
    assert steps[1] < 0.9 * steps[2]


def test_a_gaussian_blur_is_one():
    point = torch.zeros(1, 61, 61)
    point[0, 30, 30] = 1
    spread = gaussian_blurred(point, 3.0)[0]
    grid = torch.arange(61.0) - 30
    assert spread.sum().item() == pytest.approx(1, abs=1e-3)
    assert (spread.sum(dim=0) * grid**2).sum().sqrt().item() == pytest.approx(3, rel=0.03)
    assert torch.allclose(spread, spread.T, atol=1e-6)


def test_haze_as_it_stands_is_neither_nothing_nor_everything():
    photo = read(PHOTO).pixels[None, :, ::4, ::4].contiguous()
    moved = [(HazeConfig().build(1)(photo, generator=seeded(seed)) - photo).abs().mean() for seed in range(6)]
    assert min(moved) > 0.05
    assert max(moved) < 0.5
