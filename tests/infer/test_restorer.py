"""A picture is restored the same whatever way memory makes it go."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relume.core.errors import RelumeError
from relume.core.pictures import Canvas, Picture, StoredPicture
from relume.infer.engines.base import Place
from relume.infer.footprint import bytes_per_pixel
from relume.infer.restorer import Relative, Restorer
from relume.infer.targets import Target
from relume.infer.tiling import Tiler
from relume.infer.wishes import WHOLE, Wishes
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.models.super_resolution.espcn import ESPCN, ESPCNConfig
from relume.nn.native.build import find_compiler
from relume.nn.network import Network
from relume.nn.resize import imresize
from relume.nn.surgery import apply_steps

ENGINES = ["torch", "native"] if find_compiler() else ["torch"]
LUMA = "torch, luma"


def build(scale: int) -> CFSR:
    torch.manual_seed(scale)
    network = CFSR(CFSRConfig(scale=scale, width=8, depths=(1, 1), kernel_size=5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return apply_steps(network, ("reparameterise",)).eval()


def of_luma(scale: int) -> ESPCN:
    torch.manual_seed(scale)
    return ESPCN(ESPCNConfig(scale=scale, width=8)).eval()


@pytest.fixture(scope="module", params=[*ENGINES, LUMA])
def restorer(request) -> Restorer:
    make, engine = (of_luma, "torch") if request.param == LUMA else (build, request.param)

    def relative(scale: int) -> Relative:
        def load() -> Network:
            return make(scale)

        return Relative(f"small-x{scale}", load)

    relatives = {scale: relative(scale) for scale in (3, 4)}
    return Restorer(make(2), name="small-x2", engine=engine, place=Place(), relatives=relatives)


def stored(picture: Picture, folder=None) -> StoredPicture:
    planes = picture.rows(0, picture.height)
    canvas = Canvas.empty(picture.height, picture.width, planes.shape[0], picture.bits, folder=folder)
    canvas.put(0, planes)
    return StoredPicture(canvas=canvas, bits=picture.bits)


def noise(height: int, width: int, *, channels: int = 3, alpha: bool = False, bits: int = 8) -> Picture:
    generator = torch.Generator().manual_seed(height * 97 + width)
    # Whole levels, so that a stored picture holds the same.
    planes = torch.rand(channels + alpha, height, width, generator=generator).mul(2**bits - 1).round() / (
        2**bits - 1
    )
    return Picture(pixels=planes[:channels], alpha=planes[channels:] if alpha else None, bits=bits)


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), tile=st.integers(1, 80),
    channels=st.sampled_from([1, 3]), alpha=st.booleans(), faithful=st.booleans(), ensemble=st.booleans(),
    scale=st.sampled_from([None, 0.4, 1.0, 2.0, 2.7, 3.0, 5.0]),
)  # fmt: skip
def test_tiles_give_the_whole_whatever_is_done(
    restorer, height, width, tile, channels, alpha, faithful, ensemble, scale
):
    picture = noise(height, width, channels=channels, alpha=alpha)
    wishes = {
        "target": None if scale is None else Target(scale=scale), "faithful": faithful, "ensemble": ensemble,
    }  # fmt: skip
    whole = restorer.restore(picture, Wishes(tile=0, **wishes))
    tiled = restorer.restore(picture, Wishes(tile=tile, **wishes))
    chosen = restorer.restore(picture, Wishes(**wishes))
    for other in (tiled, chosen):
        assert other.picture.pixels.shape == whole.picture.pixels.shape
        assert (other.picture.pixels - whole.picture.pixels).abs().max() <= 1e-5
        if alpha:
            assert (other.picture.alpha - whole.picture.alpha).abs().max() <= 1e-5
        assert other.consistency == pytest.approx(whole.consistency, abs=0.5)
    assert whole.picture.channels == channels


@pytest.mark.parametrize(("channels", "alpha", "bits"), [*itertools.product([1, 3], [False, True], [8, 16])])
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_stored_picture_gives_the_levels_of_one_in_memory(
    restorer, channels, alpha, bits, on_disk, tmp_path
):
    picture = noise(41, 23, channels=channels, alpha=alpha, bits=bits)
    expected = restorer(picture)
    folder = tmp_path if on_disk else None
    result = restorer.restore(stored(picture, folder), Wishes(folder=folder))
    assert isinstance(result.picture, StoredPicture)
    made = result.picture.canvas.rows(0, 82)
    levels = expected.rows(0, 82).mul(2**bits - 1).add(0.5).floor() / (2**bits - 1)
    assert (made - levels).abs().max() <= 1.01 / (2**bits - 1)  # a half may fall to either side
    assert (made != levels).float().mean() < 1e-3


def test_a_target_is_the_model_resampled(restorer):
    picture = noise(31, 22)
    enlarged = restorer.restore(picture, Wishes(target=Target(scale=3))).picture.pixels
    expected = imresize(enlarged, height=78, width=55).clamp(0, 1)
    result = restorer.restore(picture, Wishes(target=Target(scale=2.5)))
    assert result.models == ("small-x3",)
    assert (result.picture.pixels - expected).abs().max() <= 1e-5


def test_faithful_is_more_consistent(restorer):
    picture = noise(24, 24)
    plain, faithful = (restorer.restore(picture, Wishes(faithful=each)).consistency for each in (False, True))
    assert faithful > plain + 5


def test_a_promise_of_memory_that_cannot_be_kept_is_refused(restorer):
    with pytest.raises(RelumeError, match=r"1 MiB are not enough: the program itself holds"):
        restorer.restore(noise(9, 9), Wishes(memory=1 << 20))


def test_less_memory_makes_smaller_tiles(restorer, monkeypatch):
    from relume.infer import restorer as module

    seen: list[int | None] = []

    def strips(self, operator, window, height, width, tile, advance):
        seen.append(tile)
        return original(self, operator, window, height, width, tile, advance)

    original = Restorer._plane_strips
    monkeypatch.setattr(Restorer, "_plane_strips", strips)
    picture, results = noise(300, 310), []
    for room in (1 << 40, 12 << 20, 5 << 20):
        monkeypatch.setattr(module, "room_for", lambda wishes, room=room: room + picture.pixels.nbytes * 4)
        results.append(restorer(picture).pixels)
    first, *smaller = [tile if tile is not None else 10**6 for tile in seen]
    assert first > smaller[0] > smaller[1]
    assert all((each - results[0]).abs().max() <= 1e-5 for each in results)
    monkeypatch.setattr(module, "room_for", lambda wishes: picture.pixels.nbytes * 4 + 1000)
    with pytest.raises(RelumeError, match="memory does not suffice"):
        restorer(picture)


def test_a_tile_that_is_named_must_keep_to_the_memory_that_is_named_too(restorer, monkeypatch):
    from relume.infer import restorer as module

    picture = noise(300, 310)
    monkeypatch.setattr(module, "room_for", lambda _: picture.pixels.nbytes * 4 + (3 << 20))
    assert restorer.restore(picture, Wishes(tile=WHOLE)).picture.pixels.shape[1] > 300
    with pytest.raises(RelumeError, match=r"in tiles of 310 pixels needs .* or leave out --tile"):
        restorer.restore(picture, Wishes(tile=WHOLE, memory=1 << 30, strict=True))


def test_the_footprint_follows_the_activations():
    narrow, wide = (
        bytes_per_pixel(CFSR(CFSRConfig(scale=2, width=width, depths=(1,), kernel_size=3)).eval())
        for width in (16, 64)
    )
    # At least input, skip and hidden features; at most everything that is ever made.
    assert 4 * (3 + 2 * 64) < wide < 4 * 64 * 40
    assert 2.5 < wide / narrow < 4.5


class Hungry:
    """Fails for want of memory on more pixels than it may take, as a GPU does."""

    def __init__(self, most: int, error: Exception | None = None) -> None:
        self.most, self.calls = most, 0
        self.error = error or torch.OutOfMemoryError("out of memory")

    def __call__(self, low: Tensor) -> Tensor:
        self.calls += 1
        if low.shape[-1] * low.shape[-2] > self.most:
            raise self.error
        return low.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("could not create a primitive"),
    ],
)
def test_tiles_are_halved_when_memory_runs_out(error):
    low, told = torch.rand(1, 3, 150, 170), []
    run = Hungry(60 * 60, error)
    tiler = Tiler(run, scale=2, tile=128, halo=3, say=told.append)
    strips = list(tiler.strips(lambda t, b, l, r: low[..., t:b, l:r], 150, 170))  # noqa: E741
    assert torch.equal(torch.cat(strips, -2), low.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert tiler.tile <= 54
    assert told
    assert "going on with tiles of" in told[-1]


def test_memory_that_never_suffices_ends_in_a_line():
    tiler = Tiler(Hungry(10), scale=2, tile=64, halo=3)
    with pytest.raises(RelumeError, match="does not suffice even for tiles"):
        list(tiler.strips(lambda t, b, l, r: torch.rand(1, 3, b - t, r - l), 64, 64))  # noqa: E741


def test_other_errors_pass(restorer):
    def broken(low: Tensor) -> Tensor:
        raise RuntimeError("some fault")

    with pytest.raises(RuntimeError, match="some fault"):
        list(Tiler(broken, scale=2, tile=64, halo=3).strips(lambda *_: torch.rand(1, 3, 8, 8), 8, 8))


def test_a_model_that_gives_no_numbers_is_told():
    network = build(2)
    fine = Restorer(network, name="broken", engine="torch", place=Place())
    with torch.no_grad():
        fine.engine._module.reconstruct.bias.fill_(float("nan"))
    with pytest.raises(RelumeError, match="no numbers"):
        fine(noise(5, 5))
