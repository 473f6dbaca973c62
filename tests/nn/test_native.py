"""The native kernels against the network that they stand for."""

import pytest
import torch

from relume.models import zoo
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.nn.convformer import FoldedConvFormer
from relume.nn.native import build, convformer
from relume.nn.native.build import NativeError, library
from relume.nn.native.convformer import NativeConvFormer

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="this machine has no C++ compiler")


def random_network(**settings):
    torch.manual_seed(0)
    network = CFSR(CFSRConfig(**settings))
    with torch.no_grad():
        for parameter in network.parameters():  # layer scales and gains that would hide a branch
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network.eval()


def test_folding_changes_nothing():
    network = random_network(scale=2, width=12, depths=(2, 1), kernel_size=5)
    low = torch.rand(2, 3, 11, 7)
    with torch.inference_mode():
        assert torch.allclose(network.folded()(low), network(low), atol=2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": 4, "width": 48, "depths": (2,), "kernel_size": 9},
        {"scale": 3, "width": 20, "depths": (1, 2), "kernel_size": 5, "ratio": 3},
        {"scale": 2, "width": 33, "depths": (1,), "kernel_size": 7, "channels": 1},
        {"scale": 1, "width": 8, "depths": (1,), "kernel_size": 3},
        {"scale": 2, "width": 64, "depths": (1,), "kernel_size": 11},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (37, 29), (70, 131)])
def test_equals_the_network(settings, size):
    network = random_network(**settings)
    native = NativeConvFormer(network.folded())
    low = torch.rand(2, settings.get("channels", 3), *size)
    with torch.inference_mode():
        expected = network(low)
    assert (native(low) - expected).abs().max() <= 2e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_strips_of_any_height_give_the_whole(rows, monkeypatch):
    monkeypatch.setattr(convformer, "_CACHED_BYTES", 1)
    network = zoo.load("cfsr-x2")[0]
    native = NativeConvFormer(network.folded(), threads=3)
    low = torch.rand(3, 150, 23)
    whole = native(low[None])[0]
    stream = native.stream(150, 23)
    strips = [stream.push(low[:, top : top + rows]) for top in range(0, 150, rows)]
    assert torch.equal(torch.cat(strips, 1), whole)
    with torch.inference_mode():
        assert (whole - network(low[None])[0]).abs().max() <= 1e-5


def test_inference_mode_makes_no_difference_to_later_calls():
    native = NativeConvFormer(zoo.load("cfsr-x2")[0].folded())
    low = torch.rand(1, 3, 20, 30)
    with torch.inference_mode():
        expected = native(low)
    assert torch.equal(native(low), expected)


def test_memory_grows_with_the_width_alone():
    native = NativeConvFormer(zoo.load("cfsr-x4")[0].folded())
    assert 2 * native.bytes_at_work(3000) == native.bytes_at_work(6000) < 700e6


def test_kernels_that_do_not_fit_are_refused():
    network = random_network(scale=2, width=8, depths=(1,), kernel_size=13)
    folded = network.folded()
    assert isinstance(folded, FoldedConvFormer)
    with pytest.raises(NativeError, match="not of 13"):
        NativeConvFormer(folded)


@pytest.fixture
def fresh_build(monkeypatch, tmp_path):
    monkeypatch.setenv("RELUME_CACHE", str(tmp_path))
    library.cache_clear()
    yield tmp_path
    library.cache_clear()


def test_a_machine_without_a_compiler_is_told(fresh_build, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NativeError, match="need a C\\+\\+ compiler"):
        library()


def test_a_compiler_that_fails_is_told(fresh_build, monkeypatch, tmp_path):
    broken = tmp_path / "kernels.cpp"
    broken.write_text("int broken( {\n")
    monkeypatch.setattr(build, "SOURCE", broken)
    with pytest.raises(NativeError, match=r"could not build.*error"):
        library()
    assert not list((tmp_path / "native").iterdir())
