"""`relume.read`, `write`, `load`, `upscale`: the Python face."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import relume
from relume.core.checkpoints import Header, write_checkpoint
from relume.core.errors import CheckpointError, OutputExistsError, PictureError, RelumeError, UnknownNameError
from relume.infer.engines.base import Place
from relume.infer.restorer import Restorer
from relume.infer.targets import Target
from relume.infer.wishes import Wishes
from relume.models.super_resolution.carn import CARN, CARNConfig
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig

SHARED = Path(__file__).resolve().parents[3] / "shared"


def picture(channels: int = 3, height: int = 7, width: int = 9, *, alpha: bool = False) -> relume.Picture:
    generator = torch.Generator().manual_seed(0)
    planes = torch.rand(channels + alpha, height, width, generator=generator)
    return relume.Picture(
        pixels=planes[:channels], alpha=planes[channels:] if alpha else None, dpi=(96.0, 96.0)
    )


def test_read_load_write_round_trip(tmp_path, tiny):
    assert relume.write(picture(alpha=True), tmp_path / "a.png") == ()
    model = relume.load(tiny)
    large = model(relume.read(tmp_path / "a.png"))
    relume.write(large, tmp_path / "b.png")
    seen = relume.read(str(tmp_path / "b.png"))
    assert (seen.width, seen.height, seen.channels, seen.dpi) == (18, 14, 3, (96.0, 96.0))
    assert seen.alpha is not None
    assert (model.scale, model.name, str(model.engine).split()[0]) == (2, "cfsr (tiny.safetensors)", "torch")
    with pytest.raises(OutputExistsError):
        relume.write(large, tmp_path / "b.png")
    with pytest.raises(PictureError):
        relume.read(tmp_path / "c.png")


@pytest.mark.parametrize("size", [(1, 1), (1, 13), (16, 3), (5, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_upscale_gives_the_same_in_tiles_as_whole(tiny, size, channels):
    small = picture(channels, *size, alpha=True)
    whole = relume.upscale(small, model=str(tiny), tile=0)
    tiled = relume.upscale(small, 2, model=str(tiny), tile=4)
    assert (whole.height, whole.width, whole.channels) == (2 * size[0], 2 * size[1], channels)
    assert torch.allclose(whole.pixels, tiled.pixels, atol=1e-5)
    assert whole.alpha is not None
    assert tiled.alpha is not None
    assert torch.allclose(whole.alpha, tiled.alpha, atol=1e-5)


def test_a_constant_alpha_stays_exactly_constant(tiny):
    for level in (0.0, 0.5, 1.0):
        small = picture().replace(alpha=torch.full((1, 7, 9), level))
        large = relume.upscale(small, model=str(tiny))
        assert large.alpha is not None
        assert large.alpha.shape == (1, 14, 18)
        assert bool((large.alpha == level).all())


def test_progress_rises_to_one(tiny):
    told: list[float] = []
    relume.load(tiny)(picture(alpha=True), tile=4, advance=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) > 4


def test_contradictions_and_unknown_names(tiny):
    with pytest.raises(RelumeError, match="scale 0 makes no picture"):
        relume.upscale(picture(), 0)
    with pytest.raises(RelumeError, match="more than the limit of 64"):
        relume.upscale(picture(), 65)
    with pytest.raises(RelumeError, match="not scale and width at once"):
        relume.upscale(picture(), 2, width=30)
    for wrong, near in (("cfsr-4", "cfsr-x4"), ("CFSR-X3", "cfsr-x3")):
        with pytest.raises(UnknownNameError, match=f"did you mean '{near}'"):
            relume.load(wrong)
    for wrong in ("", "n" * 300):
        with pytest.raises(UnknownNameError, match="unknown model"):
            relume.load(wrong)
    with pytest.raises(CheckpointError, match="there is no file"):
        relume.load(tiny.with_name("other.safetensors"))
    with pytest.raises(RelumeError, match="cannot run on the device 'abacus'"):
        relume.load(tiny, device="abacus")
    with pytest.raises(AttributeError, match="'enlarge'"):
        _ = relume.enlarge


@pytest.mark.parametrize(
    ("model", "scale", "models"),
    [
        (None, 2.5, ("cfsr-x3",)),
        ("cfsr", 6, ("cfsr-x2", "cfsr-x3")),
        ("cfsr-x2", 3, ("cfsr-x2", "cfsr-x2")),
        ("cfsr-x4", 3, ("cfsr-x4",)),
        ("cfsr", 0.5, ()),
    ],
)
def test_any_scale_is_reached_by_the_models_that_were_named(model, scale, models):
    small = picture()
    restorer = relume.load(model or "cfsr", scale=scale)
    result = restorer.restore(small, Wishes(target=Target(scale=scale)))
    assert result.models == models
    assert result.picture.size == f"{math.floor(9 * scale + 0.5)}x{math.floor(7 * scale + 0.5)}"


def test_the_default_is_the_shipped_model(default_model):
    large = relume.upscale(picture())
    assert (large.width, large.height) == (36, 28)
    assert relume.load().name == default_model


def test_everything_public_is_there():
    for name in relume.__all__:
        assert getattr(relume, name) is not None
        assert name in dir(relume)


def test_a_model_of_one_channel_enlarges_colour_plane_by_plane():
    torch.manual_seed(0)
    network = CFSR(CFSRConfig(scale=2, channels=1, width=8, depths=(1,), kernel_size=3))
    restorer = Restorer(network, name="gray", place=Place())
    colour = torch.rand(3, 6, 7)
    enlarged = restorer(relume.Picture(pixels=colour))
    assert enlarged.pixels.shape == (3, 12, 14)
    for index in range(3):
        alone = restorer(relume.Picture(pixels=colour[index : index + 1]))
        assert (enlarged.pixels[index] - alone.pixels[0]).abs().max() < 1e-6


@pytest.mark.parametrize("device", ["meta", "gpu"])
def test_a_device_that_cannot_run_is_refused(device):
    network = CFSR(CFSRConfig(scale=2, width=8, depths=(1,), kernel_size=3))
    with pytest.raises(RelumeError, match=f"cannot run on the device '{device}'"):
        Restorer(network, name="x", engine="torch", place=Place(device=device))


@torch.no_grad()
@pytest.mark.parametrize("by", ["the authors", "relume"])
def test_authors_weights_for_several_scales_bring_them_all(tmp_path, by):
    torch.manual_seed(0)
    config = CARNConfig(body=CARNConfig().body.model_copy(update={"width": 8}))
    network = CARN(config)
    path = tmp_path / "a.safetensors"
    header = Header(model="carn", variant=None, config=config.model_dump(mode="json"), trained={"by": by})
    write_checkpoint(path, network.state_dict(), header)
    low = torch.rand(1, 3, 5, 6)
    for scale in (2, 3, 4):
        model = relume.load(path, scale=scale, engine="torch")
        if by == "relume":  # a training of ours is for one scale, and the others' layers are as they began
            assert (model.scale, model.scales) == (4, (4,))
            continue
        alone = CARN(config.model_copy(update={"scale": scale})).eval()
        alone.load_state_dict(network.state_dict())
        assert (model.scale, model.scales) == (scale, (2, 3, 4))
        assert torch.equal(model.run(low), alone(low))
        enlarged = relume.load(path, engine="torch").restore(picture(), Wishes(target=Target(scale=scale)))
        assert enlarged.picture.width == scale * picture().width
        assert torch.equal(enlarged.picture.pixels, model(picture()).pixels)


def test_the_published_file_for_several_scales_brings_them_all():
    path = SHARED / "weights" / "carn_m_multi.safetensors"
    if not path.exists():
        pytest.skip("the authors' weights (shared/weights) are not at hand")
    said = []
    names = {
        (model.scale, model.name)
        for model in (relume.load(path, scale=s, engine="torch", say=said.append) for s in (2, 3, 4))
    }
    assert names == {(2, "carn-m-x2"), (3, "carn-m-x3"), (4, "carn-m-x4")}
    assert not any("on trust" in line for line in said)
