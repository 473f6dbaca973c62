"""Every piece of the practical degradation model against what the authors' own code computes.

The cases of one class are told apart by their outputs' names, as the authors' code was called. The whole
pipelines are in test_bsrgan.py.
"""

import math
import re

import numpy as np
import pytest
import torch
from recorded import CASES, close, hwc, planes, read_case

from relume.data.degradations import kernels
from relume.data.degradations.blur import convolve
from relume.data.degradations.jpeg import jpeg_codec
from relume.data.degradations.resizing import imresize, resize
from relume.data.degradations.sharpening import sharpened
from relume.data.degradations.steps import Decimate

MODES = {"0": "nearest", "1": "bilinear", "2": "bicubic", "3": "area"}


def anisotropic_gaussian(case, name):
    size, angle, l1, l2 = case["input"][int(name)].tolist()
    return kernels.anisotropic(int(size), angle=angle, variance_1=l1, variance_2=l2)


def fspecial_gaussian(case, name):
    size, sigma = case["input"][int(name)].tolist()
    return kernels.gaussian(int(size), sigma)


def fspecial_laplacian(case, name):
    return kernels.laplacian(case["input"][int(name)].item())


def analytic_kernel(case, name):
    return kernels.doubled(case["input"])


def gen_kernel(case, name):
    seed, scale, size = (
        int(part or 15) for part in re.fullmatch(r"seed(\d+)_sf(\d+)(?:_(\d+))?", name).groups()
    )
    # The larger kernels were asked for with the range that the authors' comment gives for a scale, and noise.
    low, high, level = (0.6, 10.0, 0.0) if size == 15 else (0.175 * scale, 2.5 * scale, 0.25)
    random = np.random.RandomState(seed)
    variance_1, variance_2 = (low + random.rand() * (high - low) for _ in range(2))
    angle = random.rand() * math.pi
    noise = torch.from_numpy(level * (2 * random.rand(size, size) - 1))
    return kernels.noisy_gaussian(
        size, scale=scale, variance_1=variance_1, variance_2=variance_2, angle=angle, noise=noise
    )


def shift_pixel(case, name):
    shift = (int(case["kwargs"]["sf"]) - 1) / 2
    if name == "rgb":
        return hwc(kernels.shifted(planes(case["input.rgb"]), shift))
    return kernels.shifted(case["input"], shift if name == "upper_left" else -shift)


def add_blur(case, name):
    return hwc(convolve(planes(case["input.0"]), case["input.1"]))


def blur(case, name):
    # Theirs filters by kernels as they stand.
    return convolve(case["input.0"], case["input.1"][:, 0].flip(-2, -1), border="edge")


def classical(case, name):
    kind, scale = re.fullmatch(r"(\w+)_sf(\d+)", name).groups()
    scale = int(scale)
    x = planes(case["input.0"])
    if kind == "modcrop":
        height, width = (side - side % scale for side in x.shape[-2:])
        return hwc(x[..., :height, :width])
    if kind == "bicubic":
        return hwc(imresize(x, 1 / scale))
    if kind == "dpsr":
        return hwc(convolve(imresize(x, 1 / scale), case["input.1"], border="wrap"))
    blurred = convolve(x, case["input.1"], border="wrap")
    return hwc(imresize(blurred, 1 / scale) if kind == "srmd" else blurred[..., ::scale, ::scale])


def cv2_resize(case, name):
    width, height, mode = re.fullmatch(r"(\d+)x(\d+)_interp(\d)", name).groups()
    return hwc(resize(planes(case["input"]), height=int(height), width=int(width), mode=MODES[mode]))


def imresize_np(case, name):
    numerator, denominator = re.fullmatch(r"x(\d+)(?:_(\d+))?", name).groups()
    if denominator is None:
        factor = int(numerator)
    elif numerator == "0":
        factor = float(f"0.{denominator}")
    else:
        factor = int(numerator) / int(denominator)
    return hwc(imresize(planes(case["input"]), factor))


def downsample2(case, name):
    scale, sigma = re.fullmatch(r"sf(\d+)_sigma([\d.]+)", name).groups()
    return hwc(Decimate(int(scale), float(sigma))(planes(case["input"]), (0, 0)))


def add_jpeg(case, name):
    return hwc(jpeg_codec(planes(case["input"]), int(name.removeprefix("q"))))


def sharpening(case, name):
    # The small radius was asked for with other strengths too, which the case does not name.
    strengths = {50: {}, 9: {"weight": 0.8, "threshold": 4}}
    radius = int(name.removeprefix("r"))
    return hwc(sharpened(planes(case["input"]), radius=radius, **strengths[radius]))


OURS = {
    "analytic_kernel": analytic_kernel,
    "anisotropic_Gaussian": anisotropic_gaussian,
    "fspecial('gaussian')": fspecial_gaussian,
    "fspecial('laplacian')": fspecial_laplacian,
    "gen_kernel": gen_kernel,
    "shift_pixel": shift_pixel,
    "add_blur (fixed kernel)": add_blur,
    "blur": blur,
    "bicubic/srmd/dpsr/classical_degradation, modcrop_np": classical,
    "cv2.resize(interpolation in {1: linear, 2: cubic, 3: area})": cv2_resize,
    "utils_image.imresize_np": imresize_np,
    "degradation_bsrgan, downsample2, 25% branch": downsample2,
    "add_JPEG_noise (quality fixed 30/60/95)": add_jpeg,
    "add_sharpening": sharpening,
}
PIECES = [path for path in CASES if not path.stem.startswith("pipeline")]


@pytest.mark.skipif(not PIECES, reason="the authors' outputs (shared/golden) are not at hand")
@pytest.mark.parametrize("path", PIECES, ids=lambda path: path.stem)
def test_reproduces_the_authors_piece(path):
    case = read_case(path)
    ours = OURS[case["class"]]
    outputs = [key for key in case if key.startswith("output")]
    assert outputs
    for key in outputs:
        computed = ours(case, key.removeprefix("output").removeprefix("."))
        assert computed.shape == case[key].shape, key
        close(computed, case[key], key)


def test_a_kernel_in_float32_serves_as_well():
    x = torch.rand(2, 3, 9, 8)
    kernel = kernels.gaussian(5, 1.0)
    assert torch.allclose(convolve(x, kernel), convolve(x.double(), kernel).float(), atol=1e-6)
