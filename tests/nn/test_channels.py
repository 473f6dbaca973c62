"""Pictures through models of other channels: what of them the model sees, and what becomes of the rest."""

import pytest
import torch

from relume.nn.channels import run_picture
from relume.nn.colour import rgb_to_y, rgb_to_ycbcr
from relume.nn.resize import imresize


def nearest(low):
    return low.repeat_interleave(2, -1).repeat_interleave(2, -2)


def twice(low):
    return imresize(low, height=2 * low.shape[-2], width=2 * low.shape[-1])


@pytest.fixture
def seen():
    """What the model was given."""
    return []


def watched(seen, run):
    def model(low):
        seen.append(low)
        return run(low)

    return model


def test_a_model_of_luma_makes_the_luma_and_bicubic_the_colours(seen):
    picture = torch.rand(2, 3, 5, 7)
    output = run_picture(watched(seen, nearest), picture, channels=1, luma=True)
    (given,) = seen
    assert given.shape == (2, 1, 5, 7)
    assert (given - rgb_to_y(picture)).abs().max() <= 1e-6
    planes = rgb_to_ycbcr(output)
    assert (planes[:, :1] - nearest(rgb_to_y(picture))).abs().max() <= 1e-5
    assert (planes[:, 1:] - twice(rgb_to_ycbcr(picture))[:, 1:]).abs().max() <= 1e-5


def test_bicubic_of_luma_is_bicubic_of_the_picture():
    picture = torch.rand(1, 3, 6, 4)
    assert (run_picture(twice, picture, channels=1, luma=True) - twice(picture)).abs().max() <= 1e-5


def test_a_gray_picture_is_enlarged_like_its_copy_in_colour(seen):
    gray = torch.rand(1, 1, 5, 6)
    run = watched(seen, lambda low: nearest(low).square())
    copy = run_picture(run, gray.expand(-1, 3, -1, -1), channels=1, luma=True)
    output = run_picture(run, gray, channels=1, luma=True)
    assert output.shape == (1, 1, 10, 12)
    assert (seen[0] - seen[1]).abs().max() <= 1e-6
    assert (copy - output).abs().max() <= 1e-5


def test_a_model_of_gray_takes_each_channel_by_itself(seen):
    picture = torch.rand(2, 3, 4, 5)
    output = run_picture(watched(seen, nearest), picture, channels=1, luma=False)
    assert seen[0].shape == (6, 1, 4, 5)
    assert torch.equal(output, nearest(picture))
    gray = picture[:, :1]
    assert torch.equal(run_picture(nearest, gray, channels=1, luma=False), nearest(gray))


def test_a_model_of_colour_takes_gray_in_all_channels_and_gives_their_mean(seen):
    gray = torch.rand(1, 1, 4, 5)
    shift = torch.tensor([0.0, 0.3, 0.6])[:, None, None]
    output = run_picture(watched(seen, lambda low: low + shift), gray, channels=3, luma=False)
    assert torch.equal(seen[0], gray.expand(-1, 3, -1, -1))
    assert (output - gray - 0.3).abs().max() <= 1e-6


def test_other_channels_fit_no_model():
    with pytest.raises(ValueError, match="a picture of 4 channels does not fit a model of 3"):
        run_picture(nearest, torch.rand(1, 4, 2, 2), channels=3, luma=False)
