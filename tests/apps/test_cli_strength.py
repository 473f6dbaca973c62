"""The slider of a tunable model, from the command line, from Python, and on engines that run exports."""

import pytest
import torch

import relume as library
from commanding import picture_file
from relume.core.checkpoints import Header, write_checkpoint
from relume.core.errors import RelumeError
from relume.infer.choosing import make_ready
from relume.infer.engines import engines
from relume.infer.engines.base import Place
from relume.models.super_resolution.cfsr import CFSR, CFSRConfig
from relume.nn.surgery import apply_steps

CONFIG = CFSRConfig(scale=2, width=8, depths=(1,), kernel_size=3)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = apply_steps(CFSR(CONFIG), ("reparameterise", "tunable")).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(torch.randn_like(value) * 0.05)
    return made


@pytest.fixture(scope="module")
def slider(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "slider.safetensors"
    header = Header(model="cfsr", variant=None, config=CONFIG.model_dump(mode="json"), steps=network.steps)
    write_checkpoint(path, network.state_dict(), header)
    return path


def test_a_model_without_the_knob_refuses_it(tmp_path, refused, tiny):
    picture_file(tmp_path / "a.png")
    says = ("knows no strength", "leave the strength out")
    refused("upscale", "a.png", "-n", tiny, "--strength", "0.5", says=says)
    refused("export", tiny, "--to", "onnx", "--strength", "0.5", says=says)


def test_the_knob_changes_the_picture(tmp_path, relume, slider):
    picture_file(tmp_path / "a.png")
    for strength in ("0", "1"):
        done = relume("upscale", "a.png", "-n", slider, "--strength", strength,
                      "-o", f"at-{strength}.png", cwd=tmp_path)  # fmt: skip
        assert done.returncode == 0, done.stderr
    weak, strong = (library.read(tmp_path / f"at-{strength}.png").pixels for strength in (0, 1))
    assert (weak.float() - strong.float()).abs().max() > 0


def test_engines_are_measured_in_a_process_of_their_own(tmp_path, relume, slider):
    picture_file(tmp_path / "a.png")
    fresh = {"RELUME_CACHE": str(tmp_path / "cache"), "RELUME_ENGINE": "auto"}
    done = relume("upscale", "a.png", "-n", slider, "--strength", "0.3", "-o", "b.png",
                  cwd=tmp_path, env=fresh)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "measuring which engine is the quickest" in done.stderr
    assert "process of their own" not in done.stderr
    assert (tmp_path / "cache" / "engines.json").is_file()


def test_python_has_the_knob(slider, network):
    x = torch.rand(1, 3, 9, 9)
    for strength in (0.0, 0.7):
        network.strength = strength
        with torch.no_grad():
            assert (library.load(slider, strength=strength).run(x) - network(x)).abs().max() <= 1e-5
    with pytest.raises(RelumeError, match="out of range"):
        library.load(slider, strength=-0.1)


# "torch" runs the network itself, and "compile" compiles it anew for each strength.
@pytest.mark.parametrize("engine", sorted(engines().keys() - {"torch", "compile"}))
def test_engines_run_the_strength_that_is_set(network, engine):
    if reason := engines()[engine].missing():
        pytest.skip(reason)
    x = torch.rand(1, 3, 24, 20)
    seen = []
    for network.strength in (0.0, 1.0):
        with torch.no_grad():
            expected = network(x)
        made = make_ready(network, engine=engine, place=Place())
        assert (made(x) - expected).abs().max() <= max(made.tolerance, 1e-4)
        seen.append(expected)
    assert (seen[0] - seen[1]).abs().max() > 1e-2
