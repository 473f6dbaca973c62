"""What damages by the camera, and on the picture itself, promise, and what they say of themselves."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from seeding import noise, seeded

from matlab_writing import cells, matlab, matrix
from relume.core.errors import ConfigError, DataError
from relume.core.pictures import Picture, write
from relume.data.degradations.blur import BlurConfig, read_kernels
from relume.data.degradations.camera_noise import CameraNoiseConfig
from relume.data.degradations.holes import HolesConfig
from relume.data.degradations.jpeg import JpegConfig
from relume.data.degradations.light import luminance, shot_and_read_noise, to_linear, to_stored
from relume.data.degradations.motion_blur import MotionBlurConfig, kernel_of, shaken_path, straight_path
from relume.data.degradations.sinc import SincConfig
from relume.data.degradations.text import TextConfig

# Light


def test_light_follows_srgb_and_comes_back():
    stored = torch.linspace(0, 1, 1001)
    assert (to_stored(to_linear(stored)) - stored).abs().max() < 1e-5
    # IEC 61966-2-1: mid gray of 8 bits, and the foot of the curve.
    assert to_linear(torch.tensor(118 / 255)).item() == pytest.approx(0.1812, abs=1e-4)
    assert to_linear(torch.tensor(0.04)).item() == pytest.approx(0.04 / 12.92)


def test_noise_has_the_variance_of_shot_and_read():
    for light in (0.0, 0.1, 0.8):
        drawn = shot_and_read_noise(torch.full((1, 400, 400), light), shot=0.01, read=1e-4, random=seeded())
        assert drawn.mean().abs() < 1e-3
        assert drawn.var().item() == pytest.approx(0.01 * light + 1e-4, rel=0.03)


# Motion blur


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40), length=st.floats(0.1, 60), shaken=st.booleans())
def test_a_path_keeps_its_length_its_light_and_its_centre(seed, length, shaken):
    path = shaken_path(seeded(seed)) if shaken else straight_path(seeded(seed))
    assert (path[1:] - path[:-1]).norm(dim=1).sum().item() == pytest.approx(1, abs=1e-3)
    kernel = kernel_of(length * path)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-4)
    assert kernel.min() >= 0
    side = kernel.shape[0]
    assert kernel.shape == (side, side)
    assert side % 2 == 1
    # No farther than the margin that is told.
    margin = MotionBlurConfig(length=(length, length)).build(1).margin
    assert side // 2 <= margin
    offsets = torch.arange(side) - side // 2
    assert abs((kernel.sum(dim=1) * offsets).sum().item()) < 2e-3
    assert abs((kernel.sum(dim=0) * offsets).sum().item()) < 2e-3


def test_light_is_kept_as_light():
    """A point of light is spread, not lost; averaging stored values would lose most of it."""
    point = torch.zeros(1, 1, 65, 65)
    point[..., 32, 32] = 1
    low = MotionBlurConfig(length=12, shaken=0.5).build(1)(point, generator=seeded())
    assert to_linear(low).sum().item() == pytest.approx(1, abs=1e-3)
    flat = MotionBlurConfig().build(1)(torch.full((1, 3, 40, 40), 0.3), generator=seeded())
    assert (flat - 0.3).abs().max() < 1e-5


def test_inside_the_margin_a_patch_is_blurred_as_the_photo_is():
    high = noise(1, 3, 90, 90)
    blur = MotionBlurConfig().build(1)
    whole = blur(high, generator=seeded(4))
    patch = blur(high[..., 20:70, 15:65].contiguous(), generator=seeded(4))
    m = blur.margin
    assert (patch - whole[..., 20:70, 15:65])[..., m:-m, m:-m].abs().max() < 1e-4
    assert (patch - whole[..., 20:70, 15:65]).abs().max() > 1e-3


# Camera noise


def test_camera_noise_grows_with_the_light_and_is_coloured():
    config = CameraNoiseConfig(shot=0.005, blotches=0)
    spreads = []
    for level in (0.0, 0.3, 0.7):
        high = torch.full((1, 3, 200, 200), level)
        error = to_linear(config.build(1)(high, generator=seeded())) - to_linear(high)
        spreads.append(error.std().item())
    assert spreads == sorted(spreads)
    # Red is amplified most, and its grain is shared by neighbours, as interpolation does it.
    error = error[0]
    assert error[0].std() > 1.1 * error[1].std()
    near = (error[0, :, 1:] * error[0, :, :-1]).mean() / error[0].var()
    far = (error[0, :, 6:] * error[0, :, :-6]).mean() / error[0].var()
    assert near > 0.3
    assert far.abs() < 0.05


def test_blotches_are_colour_alone():
    high = torch.full((1, 3, 120, 120), 0.5)
    plain, blotched = (
        to_linear(CameraNoiseConfig(shot=0.002, blotches=share).build(1)(high, generator=seeded())[0])
        for share in (0.0, 0.5)
    )
    added = blotched - plain
    assert added.std() > 0.005
    assert luminance(added).abs().max() < 1e-4


# Holes


@pytest.mark.parametrize("shape", ["strokes", "boxes"])
@settings(max_examples=15, deadline=None)
@given(coverage=st.floats(0, 0.9), seed=st.integers(0, 2**40))
def test_holes_cover_what_is_asked_and_more_holds_less(shape, coverage, seed):
    high = torch.full((1, 3, 64, 64), 0.25)
    holes = HolesConfig(shape=shape, coverage=coverage, width=0.05).build(1)
    mask = holes.masks(high, generator=seeded(seed))
    covered = mask.mean().item()
    # At most by the last piece drawn more than what is asked for.
    assert coverage <= covered + 1e-6
    assert covered < coverage + 0.12
    more = HolesConfig(shape=shape, coverage=min(1, coverage + 0.1), width=0.05).build(1)
    assert (more.masks(high, generator=seeded(seed)) >= mask).all()


@pytest.mark.parametrize("fill", ["mean", "black", "gray", "white"])
def test_the_mask_told_is_the_mask_made(fill):
    high = noise(2, 3, 48, 40)
    holes = HolesConfig(fill=fill).build(1)
    mask = holes.masks(high, generator=seeded())
    low = holes(high, generator=seeded())
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(low * (1 - mask), high * (1 - mask))
    levels = {"black": 0.0, "gray": 0.5, "white": 1.0}
    for picture, clean, own in zip(low, high, mask[:, 0] > 0, strict=True):
        expected = clean[:, ~own].mean(dim=1) if fill == "mean" else torch.full((3,), levels[fill])
        assert (picture[:, own] - expected.unsqueeze(1)).abs().max() < 1e-5


def test_masks_from_a_folder(tmp_path: Path):
    half = torch.zeros(1, 30, 30)
    half[:, :, 15:] = 1
    write(Picture(pixels=half), tmp_path / "half.png")
    holes = HolesConfig(shape="folder", folder=tmp_path).build(1)
    masks = holes.masks(torch.zeros(8, 3, 60, 60), generator=seeded())
    sides = {tuple(mask[0].mean(dim=0)[[0, -1]].tolist()) for mask in masks}
    assert sides == {(0.0, 1.0), (1.0, 0.0)}
    assert holes.masks(torch.zeros(1, 3, 20, 50), generator=seeded()).shape == (1, 1, 20, 50)


def test_a_folder_that_will_not_do_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="holds no picture"):
        HolesConfig(shape="folder", folder=tmp_path).build(1)
    with pytest.raises(DataError, match="not a folder"):
        HolesConfig(shape="folder", folder=tmp_path / "none").build(1)
    with pytest.raises(ValidationError, match="belong together"):
        HolesConfig(shape="folder")


# Text


@pytest.mark.parametrize("layout", ["caption", "watermark"])
def test_text_is_laid_on_by_its_opacity(layout):
    high = noise(1, 3, 96, 160)
    text = TextConfig(layouts=(layout,), texts=("Words on it",)).build(1)
    opacity = text.masks(high, generator=seeded())
    low = text(high, generator=seeded())
    assert 0.005 < opacity.mean() < 0.5
    # What shines through of the picture is what the letters leave.
    through = low - text(torch.zeros_like(high), generator=seeded())
    assert (through - high * (1 - opacity)).abs().max() < 1e-5
    # Untouched where nothing is written.
    assert torch.equal(low[(opacity == 0).expand_as(low)], high[(opacity == 0).expand_as(high)])
    assert (low - high).abs().sub(opacity).max() < 1e-5
    assert (low != high).any()


def test_captions_lie_below_and_break_to_fit():
    high = torch.full((1, 3, 200, 200), 0.5)
    short, long = (
        TextConfig(layouts=("caption",), texts=(words,), size=0.08)
        .build(1)
        .masks(high, generator=seeded())[0, 0]
        for words in ("One line", "This caption is far too long for a single line")
    )
    for written in (short, long):
        assert written[:100].max() == 0
        assert written[:, 0].max() == 0
        assert written[:, -1].max() == 0
    tops = [int(written.amax(dim=1).nonzero()[0]) for written in (short, long)]
    assert tops[1] < tops[0] - 10


def test_what_is_no_font_is_refused(tmp_path: Path):
    (tmp_path / "letters.ttf").write_text("no font")
    with pytest.raises(ConfigError, match=r"letters\.ttf cannot be read as a font"):
        TextConfig(font=tmp_path / "letters.ttf").build(1)


# Filters


def test_ringing_overshoots_beside_an_edge_and_keeps_the_flat():
    step = torch.full((1, 1, 64, 64), 0.3)
    step[..., 32:] = 0.7
    low = SincConfig(size=(21, 21), cutoff=math.pi / 3).build(1)(step, generator=seeded())
    assert low.max() > 0.71
    assert low.min() < 0.29
    assert (low[..., :10] - 0.3).abs().max() < 1e-3
    for wrong in ({"size": (8, 9)}, {"size": (9, 7)}, {"cutoff": 4}):
        with pytest.raises(ValidationError):
            SincConfig(**wrong)


def test_given_kernels_blur(tmp_path):
    shift = np.zeros((2, 5, 5))
    shift[:, 2, 3] = 4  # one pixel to the right, four times too bright
    np.save(tmp_path / "a.npy", shift)
    pictures = noise(2, 3, 20, 20)
    degradation = BlurConfig(kernels=str(tmp_path)).build(1)
    assert degradation.margin == 2
    low = degradation(pictures, generator=seeded())
    assert (low[..., 1:] - pictures[..., :-1]).abs().max() < 1e-5
    np.save(tmp_path / "b.npy", np.ones((4, 4)))
    with pytest.raises(DataError, match=r"b\.npy holds 4x4; a kernel is square"):
        BlurConfig(kernels=str(tmp_path)).build(1)
    with pytest.raises(DataError, match="holds no kernels"):
        BlurConfig(kernels=str(tmp_path / "none")).build(1)


def test_kernels_are_read_from_matlabs_files(tmp_path):
    """As published: several in a cell array, one beside the pictures that it blurred, or a list K K N."""
    generator = np.random.default_rng(0)
    drawn = [generator.random((side, side)) + 0.1 for side in (5, 7, 3)]
    picture = generator.random((9, 9))
    save = partial(matrix, "<")
    contents = {
        "a.mat": [cells("<", "kernels", save("", drawn[0]), save("", drawn[1]))],
        "b.mat": [save("x", picture), save("f", drawn[2]), save("y", picture)],
        "c.mat": [save("anything", np.stack([drawn[0], drawn[0].T], 2)), save("sigma", np.ones((1, 1)))],
    }
    for name, elements in contents.items():
        (tmp_path / name).write_bytes(matlab("<", *elements, packed=True))
    found = read_kernels(tmp_path)
    expected = [*drawn, drawn[0], drawn[0].T]
    assert [kernel.shape[0] for kernel in found] == [5, 7, 3, 5, 5]
    for ours, theirs in zip(found, expected, strict=True):
        assert np.allclose(ours.numpy(), theirs / theirs.sum(), atol=1e-12)
    (tmp_path / "d.mat").write_bytes(matlab("<", save("x", picture), save("y", picture)))
    with pytest.raises(DataError, match=r"d\.mat holds several matrices \(x, y\); save the kernels"):
        read_kernels(tmp_path)
    (tmp_path / "d.mat").write_bytes(b"MATLAB 5.0".ljust(100))
    with pytest.raises(DataError, match=r"d\.mat is no MATLAB file"):
        read_kernels(tmp_path)


def test_gradients_pass_the_smooth_jpeg():
    pictures = noise(1, 3, 24, 24).requires_grad_()
    JpegConfig(quality=50, smooth=True).build(1)(pictures, generator=seeded()).square().sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().mean() > 1e-3
